from pathlib import Path
from typing import Any

import pytest

from mlbox.errors import LockError, UsageError
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.model import Indexes
from mlbox.project.model import IndexOptions, Project, Settings

URL = "https://index.invalid/simple"


class Notes:
    """A listener that keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def step(self, what: str) -> None: ...
    def expect(self, what: str, total: int) -> None: ...
    def advance(self, what: str, amount: int) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def host(tmp_path: Path) -> dict[str, str]:
    """The environment of a host whose configuration files are all below tmp_path."""
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}


def project(tmp_path: Path, *, index: IndexOptions = IndexOptions(), **settings: Any) -> Project:  # noqa: B008
    return Project(root=tmp_path, name="x", settings=Settings(**settings), sources=(), index=index)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def default(indexes: Indexes) -> str:
    assert indexes.default is not None
    return indexes.default.url


def test_each_source_beats_the_ones_below_it(tmp_path: Path, host: dict[str, str]) -> None:
    """Added from the weakest to the strongest: the last one added wins every time."""
    from pip._internal.models.index import PyPI

    plain = project(tmp_path)

    def now(**environ: str) -> tuple[str, str]:
        found = indexes_for(plain, environ={**host, **environ})
        return default(found), found.origin

    if not any(Path(name).exists() for name in ("/etc/pip.conf", "/etc/uv/uv.toml")):
        assert now() == (PyPI.simple_url.rstrip("/"), "pip's default")
    home = tmp_path / "home"
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = https://xdg.invalid/s\n")
    assert now()[0] == "https://xdg.invalid/s"
    write(home / ".pip/pip.conf", "[global]\nindex_url = https://old.invalid/s/\n")
    assert now()[0] == "https://old.invalid/s"
    path = write(home / ".config/pip/pip.conf", "[global]\nindex-url = https://a.invalid/s\n")
    assert now() == ("https://a.invalid/s", str(path))
    write(path, "[global]\nindex-url = https://a.invalid/s\n[install]\nindex-url = https://b.invalid/%s\n")
    assert now()[0] == "https://b.invalid/%s"
    write(tmp_path / "xdg/uv/uv.toml", 'index-url = "https://c.invalid/s"\n')
    assert now()[0] == "https://c.invalid/s"
    write(home / ".config/uv/uv.toml", '[[index]]\nurl = "https://d.invalid/s"\ndefault = true\n')
    assert now()[0] == "https://d.invalid/s"
    environ = {"PIP_INDEX_URL": "https://e.invalid/s"}
    assert now(**environ) == ("https://e.invalid/s", "PIP_INDEX_URL")
    environ["UV_INDEX_URL"] = "https://f.invalid/s"
    assert now(**environ)[0] == "https://f.invalid/s"
    environ["UV_DEFAULT_INDEX"] = "mine=https://g.invalid/s?a=b"
    assert now(**environ)[0] == "https://g.invalid/s?a=b"
    environ["MLBOX_INDEX_URL"] = "https://h.invalid/s"
    assert now(**environ)[0] == "https://h.invalid/s"
    files = project(tmp_path, index=IndexOptions(index_url="https://i.invalid/s"))
    assert default(indexes_for(files, environ={**host, **environ})) == "https://i.invalid/s"
    both = project(tmp_path, index=IndexOptions(index_url="https://i.invalid/s"), index_url="https://j.invalid/s")
    assert default(indexes_for(both, environ={**host, **environ})) == "https://j.invalid/s"


def test_find_links_and_extras_of_the_host_are_noted_but_not_used(
    tmp_path: Path, host: dict[str, str], notes: Notes
) -> None:
    write(tmp_path / "home/.config/pip/pip.conf", f"[global]\nfind-links = {tmp_path}\nextra-index-url = {URL}\n")
    write(tmp_path / "home/.config/uv/uv.toml", f'find-links = ["{tmp_path}"]\n[[index]]\nurl = "{URL}"\n')
    environ = {**host, "PIP_FIND_LINKS": str(tmp_path), "UV_INDEX": URL, "PIP_EXTRA_INDEX_URL": URL}
    found = indexes_for(project(tmp_path), environ=environ, listener=notes)
    assert found.find_links == ()
    assert found.extra == ()
    text = "\n".join(notes.notes)
    for word in (
        "PIP_FIND_LINKS",
        "UV_INDEX",
        "PIP_EXTRA_INDEX_URL",
        "pip.conf has find-links",
        "uv.toml has find-links",
    ):
        assert word in text
    assert "--find-links" in text
    assert URL not in text  # it may hold a password


def test_project_and_command_line_name_more_places(tmp_path: Path, host: dict[str, str], notes: Notes) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "more").mkdir()
    index = IndexOptions(extra_index_urls=(f"{URL}/b",), find_links=("https://h.invalid/page",))
    asked = project(tmp_path, index=index, extra_index_urls=(f"{URL}/a/", f"{URL}/b"), find_links=("wheels",))
    found = indexes_for(asked, find_links=[str(tmp_path / "more")], environ=host, listener=notes)
    assert [(extra.name, extra.url) for extra in found.extra] == [("extra-1", f"{URL}/a"), ("extra-2", f"{URL}/b")]
    assert found.find_links == (str(tmp_path / "wheels"), "https://h.invalid/page", str(tmp_path / "more"))
    assert [place.name for place in found.all] == ["extra-1", "extra-2", "default"]
    assert notes.notes == []


def test_no_index(tmp_path: Path, host: dict[str, str]) -> None:
    found = indexes_for(project(tmp_path, index=IndexOptions(no_index=True)), environ=host)
    assert found.default is None
    assert found.all == ()


def test_pip_config_file_can_be_switched_off(tmp_path: Path, host: dict[str, str]) -> None:
    write(tmp_path / "home/.config/pip/pip.conf", f"[global]\nindex-url = {URL}\n")
    environ = {**host, "PIP_CONFIG_FILE": "/dev/null"}
    assert default(indexes_for(project(tmp_path), environ=environ)) != URL


def test_variables_are_expanded(tmp_path: Path, host: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_FOR_TEST", "secret")
    found = indexes_for(project(tmp_path, index_url="https://u:${TOKEN_FOR_TEST}@h.invalid/s"), environ=host)
    assert default(found) == "https://u:secret@h.invalid/s"


@pytest.mark.parametrize("url", ["index.invalid/simple", "ftp://h/s", "javascript:1", "-h"])
def test_what_is_no_address_is_refused(tmp_path: Path, host: dict[str, str], url: str) -> None:
    with pytest.raises(UsageError, match="not an http, https or file address"):
        indexes_for(project(tmp_path, index_url=url), environ=host)


def test_missing_folder_is_named(tmp_path: Path, host: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="no such folder: nowhere"):
        indexes_for(project(tmp_path), find_links=["nowhere"], environ=host)


@pytest.mark.parametrize(
    ("name", "text"),
    [(".config/pip/pip.conf", "no section\n"), (".config/uv/uv.toml", "= 1"), (".config/uv/uv.toml", "\x00")],
)
def test_broken_configuration_is_named(tmp_path: Path, host: dict[str, str], name: str, text: str) -> None:
    path = write(tmp_path / "home" / name, text)
    with pytest.raises(LockError, match=path.name):
        indexes_for(project(tmp_path), environ=host)


@pytest.mark.parametrize("text", ["index = 1", "index = [1]", "pip = 3", "index-url = 7", "[[index]]\ndefault = true"])
def test_odd_uv_configuration_is_no_crash(tmp_path: Path, host: dict[str, str], text: str) -> None:
    write(tmp_path / "home/.config/uv/uv.toml", text)
    try:
        indexes_for(project(tmp_path), environ=host)
    except UsageError as problem:
        assert "uv.toml" in problem.message
