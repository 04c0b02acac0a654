import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes.index import FakeIndex, make_wheel, sha256
from fakes.server import Reply, Server, serving

from mlbox.build.fetch import Places, Wanted, fetch_one
from mlbox.errors import FetchError
from mlbox.http import Http, Limits
from mlbox.lock.model import Package, Target
from mlbox.lock.python.choosing import url_hint
from mlbox.lock.python.model import File, Index, Indexes, Pinned, Question
from mlbox.paths import Home
from mlbox.store.artifacts import ArtifactStore

NAME, DATA = make_wheel("six", "1.0", files={"six.py": bytes(range(256)) * 4000})
SHA = sha256(DATA)
SIX = Package(name="six", version="1.0", filename=NAME, sha256=SHA, size=len(DATA))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with serving() as running:
        yield running


@pytest.fixture
def index(server: Server) -> FakeIndex:
    index = FakeIndex(server)
    index.add((NAME, DATA))
    return index


@pytest.fixture
def http() -> Http:
    return Http(limits=Limits(connect=60, read=60, attempts=2), sleep=lambda seconds: None)


@pytest.fixture
def store(home: Home) -> ArtifactStore:
    return ArtifactStore(home)


@pytest.fixture
def places(index: FakeIndex, http: Http, home: Home, tmp_path: Path) -> Places:
    return places_of(http, home, tmp_path, default=index.url)


def places_of(http: Http, home: Home, root: Path, *, default: str = "", **kw: Any) -> Places:
    indexes = Indexes(default=Index(name="default", url=default) if default else None, **kw)
    return Places(lambda: indexes, http, home=home, root=root)


def remember(home: Home, sha: str, url: str) -> None:
    url_hint(home, sha).parent.mkdir(parents=True, exist_ok=True)
    url_hint(home, sha).write_text(url)


def test_a_file_of_the_index_is_fetched_once(places: Places, store: ArtifactStore, http: Http, server: Server) -> None:
    path = fetch_one(places.wanted(SIX), store, http)
    assert path == store.path(SHA)
    assert path.read_bytes() == DATA
    asked = len(server.requests)
    assert fetch_one(places.wanted(SIX), store, http) == path
    assert len(server.requests) == asked == 2
    assert list(store.partials()) == []


def test_many_threads_fetch_one_file_once(places: Places, store: ArtifactStore, http: Http, server: Server) -> None:
    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(lambda _: fetch_one(places.wanted(SIX), store, http), range(6)))
    assert set(paths) == {store.path(SHA)}
    assert server.paths().count(f"/files/{NAME}") == 1


def test_a_download_goes_on_where_it_stopped(places: Places, store: ArtifactStore, http: Http, server: Server) -> None:
    store.partial(SHA).write_bytes(DATA[:1000])
    fetch_one(places.wanted(SIX), store, http)
    assert server.requests[-1].headers["Range"] == "bytes=1000-"
    assert store.path(SHA).read_bytes() == DATA


def test_a_remembered_address_spares_the_index(
    places: Places, store: ArtifactStore, http: Http, server: Server, home: Home
) -> None:
    remember(home, SHA, f"{server.url}/files/{NAME}")
    fetch_one(places.wanted(SIX), store, http)
    assert server.paths() == [f"/files/{NAME}"]


def test_a_remembered_address_that_is_gone_is_no_harm(
    places: Places, store: ArtifactStore, http: Http, server: Server, home: Home
) -> None:
    remember(home, SHA, f"{server.url}/old/{NAME}")
    fetch_one(places.wanted(SIX), store, http)
    assert server.paths() == [f"/old/{NAME}", "/simple/six/", f"/files/{NAME}"]


def test_a_folder_of_find_links_needs_no_network(
    store: ArtifactStore, http: Http, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / NAME).write_bytes(DATA)
    places = places_of(http, home, tmp_path, find_links=(str(tmp_path / "links"),))
    assert fetch_one(places.wanted(SIX), store, http).read_bytes() == DATA


def test_another_file_of_that_name_in_a_folder_is_passed_over(
    index: FakeIndex, store: ArtifactStore, http: Http, home: Home, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(b"something else")
    places = places_of(http, home, tmp_path, default=index.url, find_links=(str(tmp_path),))
    assert fetch_one(places.wanted(SIX), store, http).read_bytes() == DATA


def test_the_index_of_the_lock_is_asked_first(
    index: FakeIndex, store: ArtifactStore, http: Http, home: Home, tmp_path: Path, server: Server
) -> None:
    extra = FakeIndex(server, prefix="/extra")
    extra.add((NAME, DATA))
    places = places_of(http, home, tmp_path, default=index.url, extra=(Index(name="extra-1", url=extra.url),))
    assert list(places.urls(SIX)) == [f"{server.url}/files/{NAME}"] * 2
    assert server.paths() == ["/simple/six/", "/extra/six/"]


def test_an_index_that_fails_does_not_hide_the_next(
    index: FakeIndex, store: ArtifactStore, http: Http, home: Home, tmp_path: Path
) -> None:
    broken = Index(name="extra-1", url="http://127.0.0.1:1/simple")
    places = places_of(http, home, tmp_path, default=index.url, extra=(broken,))
    package = Package(name="six", version="1.0", filename=NAME, sha256=SHA, index="extra-1")
    assert fetch_one(places.wanted(package), store, http).read_bytes() == DATA


def test_a_removed_file_names_package_file_and_command(
    index: FakeIndex, places: Places, store: ArtifactStore, http: Http
) -> None:
    index.remove(NAME)
    with pytest.raises(FetchError) as caught:
        fetch_one(places.wanted(SIX), store, http)
    for word in ("six 1.0", NAME):
        assert word in caught.value.message
    assert "mlbox lock --upgrade six" in str(caught.value.hint)
    assert not store.has(SHA)


def test_a_replaced_file_is_not_even_downloaded(
    index: FakeIndex, places: Places, store: ArtifactStore, http: Http, server: Server
) -> None:
    index.add((NAME, DATA + b"!"))
    with pytest.raises(FetchError, match="any more with the locked content"):
        fetch_one(places.wanted(SIX), store, http)
    assert server.paths() == ["/simple/six/"]


def test_damage_on_the_way_is_never_published(places: Places, store: ArtifactStore, http: Http, server: Server) -> None:
    server.files[f"/files/{NAME}"] = bytes(len(DATA))
    with pytest.raises(FetchError, match=SHA):
        fetch_one(places.wanted(SIX), store, http)
    assert not store.has(SHA)
    server.files[f"/files/{NAME}"] = DATA
    assert fetch_one(places.wanted(SIX), store, http).read_bytes() == DATA


def test_an_unreachable_index_is_the_error(store: ArtifactStore, http: Http, home: Home, tmp_path: Path) -> None:
    places = places_of(http, home, tmp_path, default="http://127.0.0.1:1/simple")
    with pytest.raises(FetchError, match="nobody accepts connections"):
        fetch_one(places.wanted(SIX), store, http)


def test_the_password_of_the_index_fetches_its_files(
    index: FakeIndex, store: ArtifactStore, http: Http, home: Home, tmp_path: Path, server: Server
) -> None:
    server.behave = lambda request: None if request.headers.get("Authorization") else Reply(status=401)
    remember(home, SHA, f"{server.url}/files/{NAME}")
    places = places_of(http, home, tmp_path, default=index.url.replace("//", "//me:pw@"))
    assert fetch_one(places.wanted(SIX), store, http).read_bytes() == DATA


def test_direct_addresses_and_files_of_the_project(
    store: ArtifactStore, http: Http, home: Home, tmp_path: Path, server: Server
) -> None:
    places = places_of(http, home, tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / NAME).write_bytes(DATA)
    local = Package(name="six", version="1.0", filename=NAME, sha256=SHA, index="direct", url=f"wheels/{NAME}")
    assert fetch_one(places.wanted(local), store, http).read_bytes() == DATA
    other_name, other = make_wheel("other", "1.0")
    server.files["/x.whl"] = other
    url = f"{server.url}/x.whl"
    remote = Package(name="other", version="1.0", filename=other_name, sha256=sha256(other), index="direct", url=url)
    assert fetch_one(places.wanted(remote), store, http).read_bytes() == other


def test_a_torch_build_is_looked_up_by_uv(
    store: ArtifactStore, http: Http, home: Home, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of torch builds has no address here; the resolver knows it."""
    server.files["/cpu/torch.whl"] = DATA
    target = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator="cpu")
    asked: list[Question] = []

    def answer(question: Question) -> tuple[Pinned, ...]:
        asked.append(question)
        file = File(filename="torch-1.0-py3-none-any.whl", url=f"{server.url}/cpu/torch.whl", sha256=SHA)
        return (Pinned(name="torch", version="1.0", files=(file,)),)

    monkeypatch.setattr("mlbox.lock.python.uv.resolve_with_uv", answer)
    places = Places(lambda: Indexes(default=None), http, home=home, root=tmp_path, target=target)
    torch = Package(name="torch", version="1.0", filename="torch-1.0-py3-none-any.whl", sha256=SHA, index="torch")
    assert fetch_one(places.wanted(torch), store, http).read_bytes() == DATA
    assert (asked[0].requirements, asked[0].torch_backend) == (("torch==1.0",), "cpu")


def test_pages_are_read_once(index: FakeIndex, places: Places, server: Server) -> None:
    for _ in range(3):
        assert list(places.urls(SIX))
    assert server.paths() == ["/simple/six/"]


def test_places_are_asked_only_for_missing_files(store: ArtifactStore, http: Http, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(DATA)
    store.add_file(tmp_path / NAME)

    def never() -> list[str]:
        raise AssertionError("asked")

    assert fetch_one(Wanted(NAME, SHA, len(DATA), never), store, http) == store.path(SHA)
