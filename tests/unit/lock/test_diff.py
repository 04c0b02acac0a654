from typing import Any

import msgspec
import pytest

from mlbox.lock.diff import diff_locks, render_diff
from mlbox.lock.model import Base, BaseLayer, CondaPackage, Deb, Folder, LayerGroup, Lock, Package, Target
from mlbox.oci.digest import DiffID, Digest

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
BASE = Base(suite="bookworm")
SIX = Package(name="six", version="1.16.0", filename="six-1.16.0-py3-none-any.whl", sha256="a" * 64)
DEB = Deb(name="git", version="1:2", arch="amd64", path="p", sha256="b" * 64, size=1, suite="bookworm", role="system")
OLD = Lock(inputs="0" * 64, target=TARGET, base=BASE, packages=(SIX,), debs=(DEB,))


def lines(**changes: Any) -> list[str]:
    return render_diff(diff_locks(OLD, msgspec.structs.replace(OLD, **changes)))


def changed(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)


def test_equal_locks_do_not_differ() -> None:
    diff = diff_locks(OLD, OLD)
    assert not diff
    assert render_diff(diff) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"packages": ()}, "- six 1.16.0"),
        ({"packages": (SIX, changed(SIX, name="new", version="2"))}, "+ new 2"),
        ({"packages": (changed(SIX, version="1.17.0"),)}, "~ six 1.16.0 -> 1.17.0"),
        ({"packages": (changed(SIX, sha256="c" * 64),)}, "other content of six-1.16.0-py3-none-any.whl"),
        ({"packages": (changed(SIX, filename="six-1.16.0.tar.gz"),)}, "-> six-1.16.0.tar.gz"),
        ({"packages": (changed(SIX, index="find-links"),)}, "index default -> find-links"),
        ({"packages": (changed(SIX, index="git", commit="d" * 40),)}, "1.16.0 -> 1.16.0 (dddddddddddd)"),
        ({"build_packages": (SIX,)}, "+ build-package six 1.16.0"),
        ({"folders": (Folder(name="x", path="libs/x"),)}, "+ folder x libs/x"),
        ({"debs": ()}, "- deb git 1:2"),
        ({"debs": (changed(DEB, version="1:3"),)}, "~ deb git 1:2 -> 1:3"),
        ({"debs": (changed(DEB, sha256="e" * 64),)}, "other content"),
        ({"target": changed(TARGET, python_full="3.11.3")}, "~ target python-full 3.11.2 -> 3.11.3"),
        ({"base": Base(suite="trixie")}, "~ base suite bookworm -> trixie"),
        ({"resolver": "pip-tools"}, "~ setting resolver uv -> pip-tools"),
        ({"epoch": 5}, "setting epoch"),
        ({"system_packages": ("git",)}, "+ setting system package git"),
    ],
)
def test_one_change_is_one_line(changes: dict[str, Any], expected: str) -> None:
    found = lines(**changes)
    assert len(found) == 1
    assert expected in found[0]


def test_a_package_that_changes_its_layer_is_told() -> None:
    one = changed(OLD, layers=(LayerGroup(name="a", packages=("six",)),))
    two = changed(OLD, layers=(LayerGroup(name="b", packages=("six",)),))
    assert render_diff(diff_locks(one, two)) == ["~ layer of six a -> b"]
    assert not diff_locks(one, OLD)


def test_the_first_lock_adds_everything() -> None:
    diff = diff_locks(None, OLD)
    assert {(change.name, change.old) for change in diff.changes} == {("six", ""), ("git", "")}
    assert all(change.new for change in diff.changes)


def sha(digit: str) -> Digest:
    return Digest("sha256:" + digit * 64)


IMAGE = Base(
    kind="image",
    reference="docker.io/library/python:3.12-slim",
    digest=sha("1"),
    manifest=sha("2"),
    config=sha("3"),
    env=("A=1", "B=2"),
    layers=tuple(BaseLayer(digest=sha(a), diff_id=DiffID(sha(b)), size=1) for a, b in ("45", "67")),
)


def test_a_base_that_moved() -> None:
    """The name, what it meant and means, how much of it stays, and which variables change."""
    fresh = changed(IMAGE.layers[1], diff_id=DiffID(sha("9")))
    moved = changed(IMAGE, digest=sha("8"), config=sha("7"), env=("A=1", "B=3", "C="), layers=(IMAGE.layers[0], fresh))
    old, new = changed(OLD, base=IMAGE), changed(OLD, base=moved)

    assert render_diff(diff_locks(old, new)) == [
        "~ base docker.io/library/python:3.12-slim sha256:111111111111 -> sha256:888888888888 (1 of 2 layers stay)",
        "~ base env B 2 -> 3",
    ]
    assert not diff_locks(old, old)


def test_another_base() -> None:
    """From Debian to an image: what kind, and which."""
    lines = render_diff(diff_locks(OLD, changed(OLD, base=IMAGE)))

    assert "~ base kind debian -> image" in lines
    assert "+ base reference docker.io/library/python:3.12-slim" in lines


def test_conda_packages_that_moved() -> None:
    """Another version, another build of it, another content, another channel; what came and what went."""

    def conda(name: str, version: str = "1.0", build: str = "h0", **more: str) -> CondaPackage:
        known = {"sha256": "a" * 64, "channel": "conda-forge", "subdir": "linux-64"} | more
        return CondaPackage(
            name=name, version=version, build=build, filename=f"{name}-{version}-{build}.conda", **known
        )

    old = msgspec.structs.replace(OLD, conda=(conda("a"), conda("b"), conda("c"), conda("d"), conda("e")))
    now = (
        conda("a", "2.0"),
        conda("b", build="h1"),
        conda("c", sha256="b" * 64),
        conda("d", channel="ours"),
        conda("f"),
    )
    assert render_diff(diff_locks(old, msgspec.structs.replace(OLD, conda=now))) == [
        "~ conda a 1.0 -> 2.0",
        "~ conda b 1.0 (build h0 -> h1)",
        "~ conda c 1.0 (other content of c-1.0-h0.conda: sha256 aaaaaaaaaaaa -> bbbbbbbbbbbb)",
        "~ conda d 1.0 (channel conda-forge -> ours)",
        "- conda e 1.0",
        "+ conda f 1.0",
    ]
