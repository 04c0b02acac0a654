"""conda-lock.yml, pixi.lock and explicit lists: what is taken from them, and what is refused."""

import json
import re
from typing import Any

import pytest

from mlbox.errors import LockError
from mlbox.lock.conda.model import channel_name, pinned, python_of
from mlbox.lock.foreign.conda_explicit import read_conda_explicit
from mlbox.lock.foreign.conda_lock import read_conda_lock
from mlbox.lock.foreign.model import Imported, Reader, Selection
from mlbox.lock.foreign.pixi import read_pixi
from mlbox.lock.model import Target

HOST = "https://conda.example.org"
A, B, MD5 = "a" * 64, "b" * 64, "c" * 32


def selection(arch: Any = "amd64", **more: Any) -> Selection:
    """Return the choice of a part of a lock."""
    return Selection(target=Target(arch=arch, python="3.11", python_full="3.11.7", glibc="2.36"), **more)


def package(name: str = "zlib", **more: Any) -> dict[str, Any]:
    """Return an entry of conda-lock.yml."""
    return {
        "name": name,
        "version": "1.3",
        "manager": "conda",
        "platform": "linux-64",
        "dependencies": {},
        "url": f"{HOST}/conda-forge/linux-64/{name}-1.3-h1_0.conda",
        "hash": {"md5": MD5, "sha256": A},
        "category": "main",
        "optional": False,
    } | more


def wheel(name: str = "six", **more: Any) -> dict[str, Any]:
    """Return an entry of conda-lock.yml for a wheel."""
    url = f"https://files.example.org/{name}-1.3-py3-none-any.whl"
    return package(name, manager="pip", url=url, hash={"sha256": B}, **more)


def conda_lock(*packages: dict[str, Any], **more: Any) -> bytes:
    """Return a conda-lock.yml; JSON is YAML."""
    platforms = ["linux-64", "linux-aarch64"]
    return json.dumps({"version": 1, "metadata": {"platforms": platforms}, "package": list(packages)} | more).encode()


def pixi(*packages: dict[str, Any], version: int = 6, **more: Any) -> bytes:
    """Return a pixi.lock whose only environment has the packages."""
    entries = [{key: one[key] for key in ("conda", "pypi") if key in one} for one in packages]
    environments = {"default": {"channels": [], "packages": {"linux-64": entries}}}
    return json.dumps({"version": version, "environments": environments, "packages": list(packages)} | more).encode()


def test_what_conda_lock_would_install_is_taken() -> None:
    """Packages of the platform, by file and hash; edges among them; wheels with their address; no host in a package."""
    lock = conda_lock(
        package("zlib", dependencies={"libgcc": ">=13", "__glibc": ">=2.17"}),
        package("libgcc"),
        package("zlib", platform="linux-aarch64", url=f"{HOST}/conda-forge/linux-aarch64/zlib-1.3-h9.conda"),
        wheel("six"),
        wheel("Flask", dependencies={"Six": ">1", "other": ""}),
    )
    found = read_conda_lock(lock, selection())
    assert [(one.package.name, one.package.requires) for one in found.conda] == [("libgcc", ()), ("zlib", ("libgcc",))]
    zlib = found.conda[1].package
    assert (zlib.filename, zlib.channel, zlib.subdir, zlib.sha256, zlib.md5) == (
        "zlib-1.3-h1_0.conda",
        "conda-forge",
        "linux-64",
        A,
        MD5,
    )
    assert "example.org" not in repr(zlib)
    assert [(one.name, one.requires, one.files[0].sha256) for one in found.pins] == [
        ("flask", ("six",), B),
        ("six", (), B),
    ]
    assert found.notes == ()


def test_categories_are_groups() -> None:
    """Only 'main' counts by itself; what is left out is said; a package of two categories is taken once."""
    lock = conda_lock(package("zlib"), package("pytest", category="dev"), package("zlib", category="dev"))
    without, with_dev = read_conda_lock(lock, selection()), read_conda_lock(lock, selection(groups=("dev",)))
    assert [one.package.name for one in without.conda] == ["zlib"]
    assert without.notes == ("conda-lock.yml: 2 packages of category 'dev' are left out; groups = ['dev'] takes them",)
    assert [one.package.name for one in with_dev.conda] == ["pytest", "zlib"]


def test_credentials_and_tokens_go_nowhere() -> None:
    """Neither the user and password of an address nor its token are in anything that is kept."""
    url = "https://me:secret@conda.example.org/t/tk-secret/pkgs/main/linux-64/zlib-1.3-h1_0.conda"
    found = read_conda_lock(conda_lock(package(url=url)), selection())
    assert "secret" not in repr(found)
    assert found.conda[0].url == "https://conda.example.org/pkgs/main/linux-64/zlib-1.3-h1_0.conda"
    assert found.conda[0].package.channel == "pkgs/main"


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_what_pixi_would_install_is_taken(version: int) -> None:
    """All versions of pixi.lock say the same in other words; the project itself is one of its folders."""
    zlib, six = f"{HOST}/conda-forge/linux-64/zlib-1.3-h1_0.conda", "https://files.example.org/six-1.3-py3-none-any.whl"
    gcc = f"{HOST}/conda-forge/noarch/libgcc-13.2-h5.tar.bz2"
    if version > 5:
        packages: list[dict[str, Any]] = [
            {"conda": zlib, "sha256": A, "md5": MD5, "depends": ["libgcc >=13", "__glibc >=2.17"], "size": 5},
            {"conda": gcc, "sha256": A},
            {"pypi": six, "name": "six", "version": "1.3", "sha256": B, "requires_dist": ["x ; extra == 'y'"]},
            {"pypi": "./", "name": "me", "version": "0", "editable": True},
        ]
        lock = pixi(*packages, version=version)
    else:
        packages = [
            {"kind": "conda", "name": "zlib", "version": "1.3", "build": "h1_0", "subdir": "linux-64", "url": zlib}
            | {"sha256": A, "md5": MD5, "depends": ["libgcc >=13"], "size": 5},
            {"kind": "conda", "name": "libgcc", "url": gcc, "sha256": A},
            {"kind": "pypi", "name": "six", "version": "1.3", "url": six, "sha256": B},
        ]
        entries = [{"conda": zlib}, {"conda": gcc}, {"pypi": six}]
        lock = pixi(version=version, environments={"default": {"packages": {"linux-64": entries}}}, packages=packages)
    found = read_pixi(lock, selection())
    assert [(one.package.filename, one.package.requires) for one in found.conda] == [
        ("libgcc-13.2-h5.tar.bz2", ()),
        ("zlib-1.3-h1_0.conda", ("libgcc",)),
    ]
    assert found.conda[1].package.size == 5
    assert [(one.name, one.version) for one in found.pins] == [*([("me", "")] if version > 5 else []), ("six", "1.3")]


def test_folders_of_pixi() -> None:
    """A path of the repository is a folder, with what it asks for."""
    six = "https://files.example.org/six-1.3-py3-none-any.whl"
    packages = (
        {"pypi": six, "name": "six", "version": "1.3", "sha256": B},
        {"pypi": "./libs/x", "name": "X", "version": "0.1", "requires_dist": ["six>=1", "old ; extra == 'y'"]},
    )
    folder = read_pixi(pixi(*packages, version=6), selection()).pins[1]
    assert (folder.kind, folder.name, folder.url, folder.requires) == ("directory", "x", "libs/x", ("six",))


def test_a_group_names_the_environment_of_pixi() -> None:
    """Without one it is 'default'; two at once cannot be meant."""
    zlib, gcc = f"{HOST}/c/linux-64/zlib-1.3-h1_0.conda", f"{HOST}/c/linux-64/libgcc-13.2-h5.conda"
    environments = {
        name: {"packages": {"linux-64": [{"conda": url}]}}
        for name, url in (("default", zlib), ("cuda", gcc), ("test", gcc))
    }
    lock = pixi({"conda": zlib, "sha256": A}, {"conda": gcc, "sha256": A}, environments=environments)
    assert [one.package.name for one in read_pixi(lock, selection()).conda] == ["zlib"]
    assert [one.package.name for one in read_pixi(lock, selection(groups=("cuda",))).conda] == ["libgcc"]
    with pytest.raises(LockError, match="name 2 environments"):
        read_pixi(lock, selection(groups=("cuda", "test")))


def test_what_an_explicit_list_names_is_taken() -> None:
    """With md5 as conda writes it, with sha256, and with the wheels that conda-lock adds as comments."""
    lines = f"""# platform: linux-64
@EXPLICIT
{HOST}/pkgs/main/linux-64/zlib-1.3-h1_0.conda#{MD5}
{HOST}/conda-forge/noarch/tzdata-2026a-0.tar.bz2#sha256:{A}
{HOST}/conda-forge/noarch/pip-25.0-pyh1.conda#{A}
# pip six @ https://files.example.org/six-1.3-py3-none-any.whl#sha256={B}
# pip flask @ https://files.example.org/flask-2.0.tar.gz --hash=sha256:{B}
"""
    found = read_conda_explicit(lines.encode(), selection())
    assert [(one.package.name, one.package.sha256, one.package.md5) for one in found.conda] == [
        ("pip", A, ""),
        ("tzdata", A, ""),
        ("zlib", "", MD5),
    ]
    assert [(one.name, one.version) for one in found.pins] == [("flask", "2.0"), ("six", "1.3")]


def _explicit(line: str) -> bytes:
    return f"@EXPLICIT\n{line}\n".encode()


GOOD = f"{HOST}/conda-forge/linux-64/zlib-1.3-h1_0.conda"
BAD: dict[str, tuple[Reader, bytes, str]] = {
    "conda-lock: truncated": (read_conda_lock, conda_lock(package())[:-30], "is not YAML|expected"),
    "conda-lock: empty": (read_conda_lock, b"", "expected `object`|Expected `object`"),
    "conda-lock: a list": (read_conda_lock, b"- x", "Expected `object`"),
    "conda-lock: newer": (read_conda_lock, conda_lock(package(), version=2), "version 2, and only 1 is known"),
    "conda-lock: version is a word": (read_conda_lock, conda_lock(version="x"), r"Expected `int`.*\$\.version"),
    "conda-lock: packages are a map": (read_conda_lock, conda_lock(package={}), r"Expected `array`.*\$\.package"),
    "conda-lock: no url": (read_conda_lock, conda_lock({"name": "x"}), r"missing required field.*\$\.package\[0\]"),
    "conda-lock: other platforms": (
        read_conda_lock,
        conda_lock(metadata={"platforms": ["osx-arm64"]}),
        "is for osx-arm64, not for linux-64",
    ),
    "conda-lock: no hash": (read_conda_lock, conda_lock(package(hash={})), "no sha256 and no md5"),
    "conda-lock: half a hash": (read_conda_lock, conda_lock(package(hash={"sha256": "abc"})), "no hash of 64"),
    "conda-lock: a file": (read_conda_lock, conda_lock(package(url="../x/linux-64/zlib-1.3-h.conda")), "no address"),
    "conda-lock: no package": (read_conda_lock, conda_lock(package(url=f"{HOST}/c/linux-64/x.zip")), "name of a conda"),
    "conda-lock: climbs": (
        read_conda_lock,
        conda_lock(package(url=f"{HOST}/c/linux-64/..%2f..%2fzlib-1.3-h1_0.conda")),
        "name of a conda",
    ),
    "conda-lock: channel climbs": (
        read_conda_lock,
        conda_lock(package(url=f"{HOST}/c/../linux-64/z-1-h.conda")),
        "called",
    ),
    "conda-lock: another package": (
        read_conda_lock,
        conda_lock(package(url=f"{HOST}/c/linux-64/z-1-h.conda")),
        "another",
    ),
    "conda-lock: twice": (
        read_conda_lock,
        conda_lock(package(), package(url=f"{HOST}/other/linux-64/zlib-1.3-h1_0.conda")),
        "stands there twice",
    ),
    "conda-lock: unknown manager": (
        read_conda_lock,
        conda_lock(package(manager="cargo")),
        "'cargo', which is not known",
    ),
    "conda-lock: wheel without hash": (read_conda_lock, conda_lock(wheel() | {"hash": {}}), "no sha256 of six"),
    "conda-lock: wheel of a folder": (
        read_conda_lock,
        conda_lock(wheel() | {"url": "file:///etc/x.whl"}),
        "no address",
    ),
    "conda-lock: name is a path": (read_conda_lock, conda_lock(wheel() | {"name": "../six"}), "is no Python package"),
    "conda-lock: git without commit": (
        read_conda_lock,
        conda_lock(wheel() | {"url": "git+https://h/r@main"}),
        "commit",
    ),
    "conda-lock: a bomb of aliases": (
        read_conda_lock,
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "anchors and aliases are not read",
    ),
    "conda-lock: a tag": (read_conda_lock, b"version: !!python/object:os.system x\n", "the tag"),
    "conda-lock: deep": (read_conda_lock, b"[" * 100_000, "nested more than"),
    "conda-lock: not text": (read_conda_lock, b"\xff\xfe\x00", "is not UTF-8"),
    "conda-lock: control characters": (read_conda_lock, b"version: \x01", "is not YAML"),
    "pixi: newer": (read_pixi, b"version: 8\nsomething: else\n", "version 8, and only 4 to 7 are known"),
    "pixi: no version": (read_pixi, b"environments: {}\n", "missing required field `version`"),
    "pixi: no environment": (read_pixi, pixi(environments={}), "has no environment 'default'"),
    "pixi: no platform": (read_pixi, pixi(environments={"default": {"packages": {}}}), "is for no platform"),
    "pixi: unknown package": (
        read_pixi,
        pixi(environments={"default": {"packages": {"linux-64": [{"conda": GOOD}]}}}),
        "not among the packages",
    ),
    "pixi: an entry of nothing": (
        read_pixi,
        pixi(environments={"default": {"packages": {"linux-64": [{"x": 1}]}}}),
        "not among the packages",
    ),
    "pixi: from source": (read_pixi, pixi({"conda": "./src", "sha256": A}), "built from source"),
    "pixi: another folder": (read_pixi, pixi({"pypi": "../lib", "name": "lib"}), "leaves the repository"),
    "pixi: twice": (read_pixi, pixi({"conda": GOOD, "sha256": A}, {"conda": GOOD, "sha256": A}), "stands twice"),
    "pixi: size is a word": (read_pixi, pixi({"conda": GOOD, "sha256": A, "size": "big"}), r"\$\.packages\[0\]\.size"),
    "explicit: no mark": (read_conda_explicit, f"{GOOD}#{MD5}".encode(), "has a line @EXPLICIT"),
    "explicit: no hash": (read_conda_explicit, _explicit(GOOD), "line 2: .* has no hash"),
    "explicit: a wrong hash": (read_conda_explicit, _explicit(f"{GOOD}#sha256:{MD5}"), "has no hash"),
    "explicit: another machine": (
        read_conda_explicit,
        _explicit(f"{HOST}/c/osx-64/zlib-1.3-h1_0.conda#{MD5}"),
        "is for osx-64, not for linux-64",
    ),
    "explicit: twice": (read_conda_explicit, _explicit(f"{GOOD}#{MD5}\n{GOOD}#{A}"), "line 3: zlib stands there twice"),
    "explicit: not text": (read_conda_explicit, b"\xff\xfe", "not UTF-8"),
    "explicit: a path": (read_conda_explicit, _explicit(f"/tmp/zlib-1.3-h1_0.conda#{MD5}"), "no address"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_locks_are_refused_with_a_reason(case: str) -> None:
    """Whatever is wrong: one LockError that says what, and no secret in it."""
    reader, data, reason = BAD[case]
    with pytest.raises(LockError) as caught:
        reader(data, selection())
    assert re.search(reason, caught.value.message), caught.value.message


def test_a_secret_in_a_bad_address_is_not_shown() -> None:
    """Messages may go to logs."""
    url = "https://me:secret@conda.example.org/x"
    with pytest.raises(LockError) as caught:
        read_conda_lock(conda_lock(package(url=url)), selection())
    assert "secret" not in caught.value.message


def test_a_lock_of_many_packages_is_read_at_once() -> None:
    """Two thousand packages, as a lock for four platforms has them."""
    lock = conda_lock(*(package(f"p{number}") for number in range(2000)))
    found: Imported = read_conda_lock(lock, selection())
    assert len(found.conda) == 2000


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("conda-forge", "conda-forge"),
        ("https://h.example.org/conda-forge", "conda-forge"),
        ("https://h.example.org/t/tk-1/conda-forge/", "conda-forge"),
        ("https://h.example.org/pkgs/main", "pkgs/main"),
        ("https://h.example.org/conda-forge/label/dev", "conda-forge/label/dev"),
        ("https://h.example.org/artifactory/api/conda/ours", "ours"),
        ("file:///home/me/channel", "channel"),
    ],
)
def test_channels_have_names(address: str, name: str) -> None:
    """A name says nothing of a host or a folder of a machine."""
    assert channel_name(address) == name


def test_a_python_without_its_lock_is_refused() -> None:
    """Its modules lie elsewhere and its wheels have other tags."""
    usual = pinned(f"{HOST}/c/linux-64/python-3.13.1-h1_0_cp313.conda", sha256=A).package
    threads = pinned(f"{HOST}/c/linux-64/python-3.13.1-h1_0_cp313t.conda", sha256=A).package
    assert python_of([usual]) == "3.13.1"
    assert python_of([]) == ""
    with pytest.raises(LockError, match="without its global lock"):
        python_of([threads])
