"""What is locked to compile with: nothing when nothing is compiled, the rest never in the image."""

from pathlib import Path
from typing import Any

import pytest

from mlbox.engine import bases, compiling
from mlbox.engine.compiling import Stager, stage_packages, unused_options, with_architectures
from mlbox.engine.freshness import LockOptions
from mlbox.errors import LockError
from mlbox.events import SILENT
from mlbox.http import Http
from mlbox.lock.base import Interpreter, System
from mlbox.lock.debian import Asked, DebianLock
from mlbox.lock.model import Base, BaseLayer, Deb, Lock, Package, Target
from mlbox.paths import Home
from mlbox.project.model import BuildOptions, Project, Settings

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator="cpu")
DEBIAN = Base(suite="bookworm")


def package(*compiled: str, filename: str = "demo-1.0.tar.gz") -> Package:
    return Package(name="demo", version="1.0", filename=filename, sha256="0" * 64, compiled=compiled)


def deb(name: str, version: str = "1", role: Any = "base") -> Deb:
    sha256 = f"{abs(hash((name, version))):064x}"[:64]
    return Deb(
        name=name, version=version, arch="amd64", path=f"p/{name}", sha256=sha256, size=1, suite="bookworm", role=role
    )


@pytest.mark.parametrize(
    ("one", "settings", "headers", "expected"),
    [
        (package(filename="demo-1.0-py3-none-any.whl"), Settings(build_packages=("cmake",)), True, ()),
        (package(), Settings(), True, ()),
        (package(), Settings(build_packages=("git",)), True, ("git",)),
        (package("c"), Settings(), True, ("build-essential", "python3.11-dev")),
        (package("c"), Settings(), False, ("build-essential",)),
        (package("c++", "fortran"), Settings(), False, ("build-essential", "gfortran")),
        (package("rust"), Settings(), False, ("build-essential", "cargo")),
        (
            package("c"),
            Settings(build_packages=("libpq-dev", "build-essential")),
            False,
            ("libpq-dev", "build-essential"),
        ),
    ],
)
def test_stage_packages(one: Package, settings: Settings, headers: bool, expected: tuple[str, ...]) -> None:
    assert stage_packages([one], settings, "3.11", headers=headers) == expected


def test_options_of_what_is_not_built() -> None:
    """A name that is written otherwise is the same; a wheel, or nothing at all, is not built."""
    options = BuildOptions(gpu=True)
    settings = Settings(build={"Demo": options, "of-a-wheel": options, "nothing": options})
    wheel = Package(name="of-a-wheel", version="1.0", filename="of_a_wheel-1.0-py3-none-any.whl", sha256="0" * 64)
    assert unused_options([package(), wheel], settings) == ["nothing", "of-a-wheel"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What was asked of the archive, which has a compiler and a newer libc."""
    questions: list[Asked] = []

    def answer(question: Asked, **_: object) -> DebianLock:
        questions.append(question)
        found = (deb("apt"), deb("gcc", role="system"), deb("libc6", "2", role="system"))
        return DebianLock(suite=question.suite, python_full="", glibc="", debs=found)

    monkeypatch.setattr(compiling, "lock_debian", answer)
    monkeypatch.setattr(compiling, "lock_on_base", answer)
    return questions


def stager(home: Home, previous: Lock | None = None, **settings: Any) -> Stager:
    project = Project(root=Path("/p"), name="p", settings=Settings(**settings), sources=())
    return Stager(project, home, Http(), SILENT, previous, LockOptions())


def test_nothing_is_asked_when_nothing_is_compiled(home: Home, asked: list[Asked]) -> None:
    stage = stager(home).lock([package()], DEBIAN, TARGET, [deb("apt")])
    assert (stage.base, stage.debs, asked) == (None, (), [])


def test_the_stage_is_what_the_image_lacks(home: Home, asked: list[Asked]) -> None:
    before = Lock(inputs="x", target=TARGET, base=DEBIAN, build_debs=(deb("gcc", "0", "build"),))
    image = [deb("apt"), deb("libc6", "1")]

    stage = stager(home, before).lock([package("c")], DEBIAN, TARGET, image)

    assert [(one.name, one.version, one.role) for one in stage.debs] == [("gcc", "1", "build"), ("libc6", "2", "build")]
    assert asked[0].packages == ["apt", "libc6", "build-essential", "python3.11-dev"]
    assert [one.name for one in asked[0].locked] == ["gcc", "apt", "libc6"]


def image(reference: str, *, glibc: str = "2.36", suite: str = "bookworm", files: tuple[str, ...] = ()) -> Any:
    """An image that was looked into."""

    class Root:
        def resolve(self, path: str) -> str | None:
            return path if path in files else None

    return bases.Ground(
        root=Root(),  # type: ignore[arg-type]
        system=System(name="Some Linux 9", suite=suite),
        glibc=glibc,
        env={},
        status=b"",
        installed={},
        merged=True,
        interpreters=[Interpreter(python="3.11", home="/usr/local/bin")],
        entrypoint=(),
    )


def base_of(reference: str, suite: str = "bookworm") -> Base:
    digest: Any = "sha256:" + "1" * 64
    layer = BaseLayer(digest=digest, diff_id=digest, size=1)
    return Base(
        kind="image",
        suite=suite,
        reference=reference,
        digest=digest,
        manifest=digest,
        config=digest,
        home="/usr/local/bin",
        layers=(layer,),
    )


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Images by name."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(bases, "find_base", lambda store, reference, *_, **__: base_of(str(reference), ""))
    monkeypatch.setattr(bases, "look_into", lambda store, base, arch: found[base.reference])
    return found


def test_a_base_of_no_known_release_needs_a_compiler_of_its_own(
    home: Home, asked: list[Asked], images: dict[str, Any]
) -> None:
    base = base_of("docker.io/x/alma:9", suite="")
    images[base.reference] = image(base.reference, suite="", files=("usr/bin/gcc",))
    assert stager(home).lock([package("c")], base, TARGET, []).debs == ()

    images[base.reference] = image(base.reference, suite="")
    with pytest.raises(LockError, match="Some Linux 9 and has no compiler"):
        stager(home).lock([package("c")], base, TARGET, [])
    assert asked == []


def test_a_build_base_is_locked_with_what_it_lacks(home: Home, asked: list[Asked], images: dict[str, Any]) -> None:
    name = "docker.io/nvidia/cuda:12.8.1-devel-debian12"
    images[name] = image(name)

    stage = stager(home, build_base=name).lock([package("c", "cuda")], DEBIAN, TARGET, [deb("apt")])

    assert stage.base
    assert (stage.base.reference, stage.base.suite, stage.base.home) == (name, "bookworm", "/usr/local/bin")
    assert asked[0].packages == ["build-essential"]  # nothing of the image: it is not below
    assert {one.role for one in stage.debs} == {"build"}


def test_what_is_built_on_a_newer_glibc_would_not_run(home: Home, images: dict[str, Any]) -> None:
    images["docker.io/x/new:1"] = image("new", glibc="2.41")
    with pytest.raises(LockError, match=r"glibc 2\.41, and the image has 2\.36"):
        stager(home, build_base="docker.io/x/new:1").lock([package("c")], DEBIAN, TARGET, [])


@pytest.mark.parametrize(
    ("settings", "accelerator", "expected"),
    [
        (Settings(gpu_architectures=("sm_80", "9.0a", "8.0")), "cpu", ("8.0", "9.0a")),
        (Settings(), "cu126", ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")),
        (Settings(), "cpu", ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0+PTX")),
        (
            Settings(build_base="docker.io/nvidia/cuda:12.9.1-devel-ubuntu24.04"),
            "cpu",
            ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0+PTX"),
        ),
    ],
)
def test_architectures(settings: Settings, accelerator: str, expected: tuple[str, ...]) -> None:
    import msgspec

    target = msgspec.structs.replace(TARGET, accelerator=accelerator)
    found = with_architectures([package("cuda"), package("c")], target, settings)
    assert [one.gpu_architectures for one in found] == [expected, ()]
