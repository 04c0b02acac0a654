"""Locked packages that no mirror has any more: what says so, and what still has them."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from mlbox.build.fetch import Places
from mlbox.build.sources import Sources
from mlbox.errors import FetchError
from mlbox.events import SILENT
from mlbox.http import Http
from mlbox.lock.debian import mirrors
from mlbox.lock.model import Deb
from mlbox.lock.python.model import Indexes
from mlbox.oci.image import ContainerConfig
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, DebPiece
from mlbox.store.artifacts import ArtifactStore

DATA = b"a package"
SHA = hashlib.sha256(DATA).hexdigest()


def thing(source: str = "") -> Deb:
    return Deb(
        name="thing",
        version="1.0-1",
        arch="amd64",
        path="pool/thing_1.0-1_amd64.deb",
        sha256=SHA,
        size=len(DATA),
        suite="bookworm",
        source=source,
        role="system",
    )


def sources(home: Home, deb: Deb, where: Callable[[Deb], Sequence[str]]) -> Sources:
    plan = BuildPlan(arch="amd64", layers=(), config=ContainerConfig(), debs=(deb,))
    places = Places(lambda: Indexes(default=None), Http(), home=home, root=home.root)
    return Sources(plan, places, where, ArtifactStore(home), Http(), SILENT)


PIECE = DebPiece(name="thing", version="1.0-1", arch="amd64", sha256=SHA)


def mirror(tmp_path: Path, name: str, *, has: bool) -> str:
    folder = tmp_path / name / "pool"
    folder.mkdir(parents=True)
    if has:
        (folder / "thing_1.0-1_amd64.deb").write_bytes(DATA)
    return folder.parent.as_uri()


@pytest.mark.parametrize(
    ("source", "advice"),
    [("", "MLBOX_DEBIAN_MIRROR"), ("vendor", "the archive of vendor")],
    ids=["release", "source"],
)
@pytest.mark.parametrize("count", [1, 2])
def test_what_vanished_is_named(home: Home, tmp_path: Path, source: str, advice: str, count: int) -> None:
    """With the version, and every way to go on."""
    roots = [mirror(tmp_path, f"m{number}", has=False) for number in range(count)]
    with pytest.raises(
        FetchError, match=r"the package thing 1\.0-1 of the lock is .* no longer on the mirror"
    ) as problem:
        sources(home, thing(source), lambda deb: roots).path(PIECE)
    for word in ("mlbox lock --upgrade thing", "mlbox bundle load", advice):
        assert word in str(problem.value.hint)


def test_what_vanished_comes_from_the_store(home: Home) -> None:
    """Where a bundle puts its files too; no mirror is asked."""
    artifacts = ArtifactStore(home)
    with artifacts.fetching(SHA):
        part = artifacts.partial(SHA)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(DATA)
        artifacts.publish(part, SHA)
    assert sources(home, thing(), lambda deb: pytest.fail("asked")).path(PIECE).read_bytes() == DATA


def test_what_vanished_comes_from_the_mirror_of_its_day(home: Home, tmp_path: Path) -> None:
    """The host's own mirrors are asked first: they are near."""
    today, then = mirror(tmp_path, "today", has=False), mirror(tmp_path, "debian/20260901", has=True)
    template = then.replace("debian/20260901", "{archive}/{date}")
    env = {"MLBOX_DEBIAN_MIRROR": today, "MLBOX_DEBIAN_SECURITY_MIRROR": today, "MLBOX_DEBIAN_SNAPSHOT": template}
    where = partial(mirrors, snapshot="2026-09-01", env=env)
    assert where(thing())[:2] == [today, then]
    assert sources(home, thing(), where).path(PIECE).read_bytes() == DATA


def test_a_mirror_that_cannot_be_reached_is_no_proof(home: Home, tmp_path: Path) -> None:
    """What could not be asked may still have it."""
    roots = [mirror(tmp_path, "m", has=False), "https://127.0.0.1:1/debian"]
    with pytest.raises(FetchError) as problem:
        sources(home, thing(), lambda deb: roots).path(PIECE)
    assert "no longer" not in problem.value.message
