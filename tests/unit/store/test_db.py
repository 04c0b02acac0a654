import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlbox.errors import StoreError
from mlbox.store.db import Database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "home" / "mlbox.db")
    yield database
    database.close()


def names(db: Database) -> list[str]:
    return [name for (name,) in db.rows("SELECT reference FROM names ORDER BY reference")]


def test_nothing_is_made_before_the_first_use(db: Database) -> None:
    assert not db.path.parent.exists()
    assert names(db) == []
    assert db.path.exists()


def test_a_transaction_is_all_or_nothing(db: Database) -> None:
    with db.write() as execute:
        execute("INSERT INTO names VALUES ('a', 'd')")
    with pytest.raises(KeyboardInterrupt), db.write() as execute:
        execute("INSERT INTO names VALUES ('b', 'd')")
        raise KeyboardInterrupt
    assert names(db) == ["a"]


def test_readers_do_not_wait_for_a_writer(db: Database) -> None:
    other = Database(db.path)
    with db.write() as execute:
        execute("INSERT INTO names VALUES ('a', 'd')")
        assert names(other) == []
    assert names(other) == ["a"]
    other.close()


def test_a_newer_schema_is_refused(db: Database) -> None:
    names(db)
    db.close()
    connection = sqlite3.connect(db.path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer mlbox") as caught:
        names(db)
    assert "MLBOX_HOME" in (caught.value.hint or "")


def test_an_older_schema_is_brought_up_to_date(db: Database) -> None:
    with db.write() as execute:
        execute("INSERT INTO names VALUES ('a', 'd')")
        for table in ("blobs", "remotes", "referrers"):
            execute(f"DROP TABLE {table}")
        execute("PRAGMA user_version=1")
    db.close()
    assert names(db) == ["a"]
    assert db.rows("SELECT * FROM referrers") == []
    db.close()
    assert names(db) == ["a"]


def test_a_file_that_is_no_database(db: Database) -> None:
    db.path.parent.mkdir()
    db.path.write_bytes(b"not a database, but long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"mlbox\.db: file is not a database") as caught:
        names(db)
    assert "fsck" in (caught.value.hint or "")
    db.set_aside()
    assert names(db) == []
    assert (db.path.parent / "damaged-mlbox.db").exists()


def test_a_full_disk_is_said(db: Database) -> None:
    with db.write() as execute:
        execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match="full") as caught, db.write() as execute:
        for i in range(1000):
            execute("INSERT INTO names VALUES (?, ?)", (f"{i}", "x" * 1000))
    assert "free some space" in (caught.value.hint or "")
    assert names(db) == []


def test_many_threads(db: Database) -> None:
    def add(i: int) -> None:
        with db.write() as execute:
            execute("INSERT INTO names VALUES (?, 'd')", (f"{i:03}",))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    assert names(db) == [f"{i:03}" for i in range(100)]


def test_many_processes_make_one_database(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlbox.store.db import Database\n"
        "with Database(Path(sys.argv[1])).write() as e: e('INSERT INTO names VALUES (?, 1)', (sys.argv[2],))"
    )
    path = tmp_path / "new" / "mlbox.db"
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), str(i)]) for i in range(4)]
    assert [child.wait(30) for child in children] == [0] * 4
    db = Database(path)
    assert names(db) == ["0", "1", "2", "3"]
    assert db.problems() == []
    db.close()
