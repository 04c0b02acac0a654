"""Whether an image's environment would find its libraries: looked at once, kept, and said so that it helps."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fakes.elf import shared_library

from mlbox.build.image import assemble_image
from mlbox.build.linking import Finding
from mlbox.codec import canonical_json
from mlbox.engine import linking
from mlbox.engine.linking import findings_of, judge, lacking_packages, prove, remarks, remarks_of
from mlbox.errors import BuildError
from mlbox.lock.file import encode_lock
from mlbox.lock.model import Base, Lock, Target
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, artifact_of, subject_of
from mlbox.oci.image import ContainerConfig, Image
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, DebPiece, EnvPiece, LayerPlan, Piece, ProjectPiece
from mlbox.project.model import Settings
from mlbox.store.store import Store
from mlbox.store.tree import Tree, TreeWriter

LOCK = Lock(
    inputs="sha256:" + "0" * 64,
    target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
    base=Base(suite="bookworm"),
)
SITE = "opt/mlbox/env/lib/python3.11/site-packages"
MODULE = shared_library(None, needed=["libc.so.6", "libGL.so.1", "libodd.so.3"])
DEMO = {f"{SITE}/demo/_x.abi3.so": MODULE, f"{SITE}/demo-1.0.dist-info/RECORD": b"demo/_x.abi3.so,sha256=x,1\n"}
SYSTEM = {"usr/lib/x86_64-linux-gnu/libc.so.6": shared_library("libc.so.6")}


def test_libraries_of_cuda_are_named_with_what_brings_them() -> None:
    """Wheels, and a base of the image's Python; what is for another CUDA is nobody's trouble."""
    module = f"{SITE}/demo/_x.abi3.so"
    missing = [
        Finding(kind="missing", name=name, package="demo 1.0", needed_by=(module,), modules=(module,), of=1)
        for name in ("libcublas.so.12", "libcudnn.so.9")
    ]
    noble = msgspec.structs.replace(LOCK, target=msgspec.structs.replace(LOCK.target, python="3.12"))
    with pytest.raises(BuildError, match=r"libcublas\.so\.12 \(of CUDA\)") as refused:
        judge(missing, Settings(), noble, Talk(), tell=False)
    hint = refused.value.hint or ""
    assert "require nvidia-cublas-cu12, nvidia-cudnn-cu12" in hint
    assert 'base = "docker.io/nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04"' in hint
    assert "another version" not in hint
    variant = f"{SITE}/bitsandbytes/libbitsandbytes_cuda118.so"
    other = Finding(kind="missing", name="libcublas.so.11", package="bitsandbytes 0.45", needed_by=(variant,))
    assert list(remarks([other], "trixie")) == []


class Talk:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, what: str) -> None: ...

    def note(self, text: str) -> None:
        self.said.append(text)

    def expect(self, what: str, total: int) -> None: ...

    def advance(self, what: str, amount: int) -> None: ...


def filled(files: dict[str, bytes]) -> Callable[[Path], Tree]:
    def fill(root: Path) -> Tree:
        writer = TreeWriter(root, "test")
        for path, data in files.items():
            writer.file(path, [data])
        return writer.finish()

    return fill


def built(
    store: Store, *, system: dict[str, bytes] = SYSTEM, files: dict[str, bytes] = DEMO, code: bytes = b"1"
) -> tuple[Image, BuildPlan]:
    """Return an image of three layers, made without an executor."""
    pieces: list[tuple[str, Piece, dict[str, bytes]]] = [
        ("base", DebPiece(name="base", version=str(len(system)), arch="amd64", sha256=""), system),
        ("environment", EnvPiece(python="3.11", python_full=str(sorted(files))), files),
        ("project", ProjectPiece(workdir=code.decode(), python="3.11", files=()), {"workspace/x.py": code}),
    ]
    plans, layers = [], []
    for kind, piece, content in pieces:
        plan = LayerPlan(name=kind, kind=kind, pieces=(piece,))  # type: ignore[arg-type]
        stored = store.pieces.make(piece.key, kind, filled(content))
        plans.append(plan)
        layers.append(store.layers.assemble(plan.key, kind, [stored]))
    whole = BuildPlan(arch="amd64", layers=tuple(plans), config=ContainerConfig(env=("A=b",)))
    image = assemble_image(whole, layers)
    store.images.add(image)
    return image, whole


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


def test_what_is_missing_is_found_and_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is read, also when only the project's code changed."""
    image, plan = built(store)
    findings, new = prove(store, image, plan, LOCK)
    assert new
    assert {one.name: one.is_fatal for one in findings} == {"libGL.so.1": True, "libodd.so.3": True}
    assert findings[0].package == "demo 1.0"

    monkeypatch.setattr(linking, "Linker", None)
    assert prove(store, image, plan, LOCK) == (findings, False)
    assert prove(store, *built(store, code=b"2"), LOCK) == (findings, False)


def test_only_new_layers_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system below the same environment: its libraries are known."""
    prove(store, *built(store), LOCK)
    monkeypatch.setattr("mlbox.build.binaries.read_binaries", None)
    more = {**SYSTEM, "usr/lib/x86_64-linux-gnu/libGL.so.1": shared_library("libGL.so.1")}
    findings, new = prove(store, *built(store, system=more), LOCK)
    assert new
    assert [one.name for one in findings] == ["libodd.so.3"]


def test_what_is_kept_and_damaged_is_made_again(store: Store) -> None:
    """It is only a copy of what the layers say."""
    image, plan = built(store)
    findings, _ = prove(store, image, plan, LOCK)
    for path in (store.home.metadata / "libraries").iterdir():
        path.write_bytes(b"\xc1nonsense")
    assert prove(store, image, plan, LOCK) == (findings, True)


def test_an_image_that_was_built_elsewhere(store: Store) -> None:
    """Its plan and lock say what it is; without them, or when they do not fit it, nothing is said."""
    image, plan = built(store)
    assert findings_of(store, image.digest) == ()
    subject = subject_of(image.digest, image.manifest_bytes)
    store.referrers.add(artifact_of(LOCK_TYPE, encode_lock(LOCK)), subject)
    store.referrers.add(artifact_of(PLAN_TYPE, canonical_json(plan)), subject)
    assert {one.name for one in findings_of(store, image.digest)} == {"libGL.so.1", "libodd.so.3"}
    assert remarks_of(store, image.digest)[0].startswith("demo 1.0: ")
    cut = msgspec.structs.replace(plan, layers=plan.layers[1:])
    store.referrers.add(artifact_of(PLAN_TYPE, canonical_json(cut)), subject)
    assert findings_of(store, image.digest) == ()


def finding(name: str = "libGL.so.1", **changed: object) -> Finding:
    known = {"kind": "missing", "package": "demo 1.0", "needed_by": ("a/site-packages/demo/_x.abi3.so",), "of": 1}
    known["modules"] = known["needed_by"]
    return Finding(**{"name": name, **known, **changed})  # type: ignore[arg-type]


def test_an_error_names_the_package_and_the_line_to_add() -> None:
    """Beside what the project asks for already, and the other way out."""
    with pytest.raises(BuildError) as refused:
        judge([finding(), finding("libodd.so.3")], Settings(system_packages=("git",)), LOCK, Talk(), tell=True)
    assert refused.value.message == (
        "demo 1.0: its extension module (demo._x) needs libGL.so.1 (package libgl1), libodd.so.3, which the image lacks"
    )
    assert refused.value.hint == (
        '[tool.mlbox] system-packages = ["git", "libgl1"], or another version of demo 1.0, '
        'or allow-missing = ["libGL.so.1", "libodd.so.3"] when that part is never used'
    )


def test_what_is_accepted_is_passed_over() -> None:
    """Error or remark."""
    talk = Talk()
    settings = Settings(allow_missing=("libGL.so.1", "libtbb.so.12"))
    judge([finding(), finding("libtbb.so.12", of=9), finding("libz.so.1", of=9)], settings, LOCK, talk, tell=True)
    assert len(talk.said) == 1
    assert "libz.so.1" in talk.said[0]


def test_remarks_are_said_once() -> None:
    """When the environment is new."""
    talk = Talk()
    judge([finding(of=4)], Settings(), LOCK, talk, tell=False)
    assert talk.said == []
    judge([finding(of=4)], Settings(), LOCK, talk, tell=True)
    assert talk.said == [
        "demo 1.0: 1 of 4 extension modules (demo._x) needs libGL.so.1 (package libgl1), which the image lacks"
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (finding(modules=()), "/a/site-packages/demo/_x.abi3.so needs libGL.so.1"),
        (finding(modules=(), needed_by=("a", "b")), "2 of its libraries and programs need libGL.so.1"),
        (finding(modules=(), needed_by=("a\x1b[2J",)), "/a?[2J needs"),
        (finding(package="", modules=()), "a file of no package: "),
        (finding("GLIBC_2.38", kind="glibc", instead="2.36"), "needs glibc 2.38, and the image has 2.36"),
        (finding("libcuda.so.1", kind="driver"), "demo 1.0 has /a/site-packages/demo/_x.abi3.so, in place of"),
        (finding("libcuda.so", kind="driver", package=""), "LD_LIBRARY_PATH has /a/"),
        (
            finding("libcublas.so.12", kind="twice", size=9_000_000),
            "libcublas.so.12 of demo 1.0 are in the base too: 9.0 MB",
        ),
    ],
)
def test_what_is_said(found: Finding, said: str) -> None:
    """Each kind in its own words."""
    (line,) = remarks([found], "bookworm")
    assert said in line


def test_long_lists_are_cut() -> None:
    """One line for a package, whatever it may want."""
    (line,) = remarks([finding(f"libav.so.{number}", modules=()) for number in range(50)], "bookworm")
    assert line.endswith("libav.so.3 and 46 more, which the image lacks")


def test_what_a_build_may_add_itself() -> None:
    """The packages of what is fatal, known, not accepted and not there already; nothing when nobody wants it."""
    found = [
        finding(),
        finding("libodd.so.3"),
        finding("libodbc.so.2", of=9),
        finding("libX11.so.6"),
        finding("libSM.so.6"),
    ]
    settings = Settings(auto_system_packages=True, allow_missing=("libSM.so.6",))
    locked = msgspec.structs.replace(LOCK, system_packages=("libx11-6",))
    assert lacking_packages(found, settings, LOCK) == ("libgl1", "libx11-6")
    assert lacking_packages(found, settings, locked) == ("libgl1",)
    assert lacking_packages(found, Settings(), LOCK) == ()
