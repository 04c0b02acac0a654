"""Where channels are: the project's addresses, then the user's conda configuration."""

from pathlib import Path

import pytest

from mlbox.errors import FetchError, LockError
from mlbox.lock.conda import channels as module
from mlbox.lock.conda.channels import Channels
from mlbox.lock.model import CondaPackage
from mlbox.paths import Home

PACKAGE = CondaPackage(
    name="zlib",
    version="1.3",
    build="h1",
    subdir="linux-64",
    filename="zlib-1.3-h1.conda",
    sha256="a" * 64,
    channel="conda-forge",
)
FILE = "linux-64/zlib-1.3-h1.conda"


def channels(tmp_path: Path, condarc: str = "", *named: str, home: Home | None = None, **env: str) -> Channels:
    """Return what a user with that ~/.condarc has."""
    (tmp_path / ".condarc").write_text(condarc)
    return Channels(named, home=home, environ={"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), **env})


@pytest.mark.parametrize(
    ("condarc", "env", "name", "addresses"),
    [
        ("channel_alias: https://c.example.org/", {}, "conda-forge", ["https://c.example.org/conda-forge"]),
        ("", {"CONDA_CHANNEL_ALIAS": "https://e.example.org"}, "x/label/y", ["https://e.example.org/x/label/y"]),
        (
            "channel_alias: https://c.example.org",
            {"MLBOX_CONDA_CHANNEL_ALIAS": "https://m.example.org"},
            "x",
            ["https://m.example.org/x"],
        ),
        ("custom_channels:\n  ours: https://o.example.org/c", {}, "ours", ["https://o.example.org/c/ours"]),
        (
            "channel_alias: https://c.example.org\ncustom_multichannels:\n  two: [a, 'https://b.example.org/b']",
            {},
            "two",
            ["https://c.example.org/a", "https://b.example.org/b"],
        ),
        (
            "default_channels:\n  - https://d.example.org/pkgs/main\n  - https://d.example.org/pkgs/r",
            {},
            "defaults",
            ["https://d.example.org/pkgs/main", "https://d.example.org/pkgs/r"],
        ),
        ("", {"TOKEN": "tk"}, "https://c.example.org/t/${TOKEN}/x/", ["https://c.example.org/t/tk/x"]),
    ],
)
def test_names_have_addresses(
    tmp_path: Path, condarc: str, env: dict[str, str], name: str, addresses: list[str]
) -> None:
    """As conda understands them."""
    assert list(channels(tmp_path, condarc, **env).addresses(name)) == addresses


def test_the_project_and_the_configuration_come_before_what_is_remembered(tmp_path: Path) -> None:
    """They may have passwords; an address that is written out is the only one of its name."""
    home = Home(tmp_path / "home")
    (home.metadata / "urls").mkdir(parents=True)
    (home.metadata / "urls" / PACKAGE.sha256).write_text(f"https://old.example.org/conda-forge/{FILE}")
    condarc = "channel_alias: https://c.example.org"
    assert list(channels(tmp_path, condarc, home=home).urls(PACKAGE)) == [
        f"https://c.example.org/conda-forge/{FILE}",
        f"https://old.example.org/conda-forge/{FILE}",
    ]
    named = channels(tmp_path, condarc, "https://p.example.org/conda-forge", "https://p.example.org/other")
    assert list(named.urls(PACKAGE)) == [f"https://p.example.org/conda-forge/{FILE}"]


def test_passwords_are_learned(tmp_path: Path) -> None:
    """Whoever fetches the files is told."""
    learned: list[str] = []
    found = Channels(
        ("https://me:secret@p.example.org/conda-forge",), environ={"HOME": str(tmp_path)}, learn=learned.append
    )
    list(found.urls(PACKAGE))
    assert learned == ["https://me:secret@p.example.org/conda-forge"]


def test_nothing_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without conda-lock and a configuration nobody knows where a channel is."""
    monkeypatch.setattr(module, "_condas_own", lambda name: "")
    with pytest.raises(LockError, match="where conda's channels are"):
        channels(tmp_path).addresses("conda-forge")
    with pytest.raises(LockError, match="what the channel 'defaults' is"):
        channels(tmp_path).addresses("defaults")
    with pytest.raises(FetchError, match="nothing says where channel 'conda-forge' is"):
        list(channels(tmp_path).urls(PACKAGE))


@pytest.mark.parametrize(
    ("condarc", "says"),
    [
        ("channel_alias: [", "is not YAML"),
        ("a: &x b\nc: *x", "anchors and aliases"),
        ("channel_alias: ftp://x.example.org", "is no address of a channel"),
        ("channel_alias: ../x", "is no address of a channel"),
    ],
)
def test_a_damaged_configuration_is_said(tmp_path: Path, condarc: str, says: str) -> None:
    """With the file, and without a traceback."""
    with pytest.raises(LockError, match=says):
        channels(tmp_path, condarc).addresses("conda-forge")


@pytest.mark.parametrize("condarc", ["- a", "custom_channels: x", "channels: x", "default_channels: 1", "x: {y: [z]}"])
def test_other_shapes_do_not_crash(tmp_path: Path, condarc: str) -> None:
    """A configuration of another shape says nothing."""
    found = channels(tmp_path, condarc, MLBOX_CONDA_CHANNEL_ALIAS="https://m.example.org")
    assert found.addresses("conda-forge") == ("https://m.example.org/conda-forge",)
