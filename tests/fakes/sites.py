"""Two machines that only a file goes between: a store with images built from wheels, and an empty one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from fakes.trees import hashed
from fakes.wheels import make_wheel, piece_of

from mlbox.build.env import fill_env
from mlbox.build.image import assemble_image
from mlbox.build.rebuild import encode_plan
from mlbox.build.wheel import unpack_wheel
from mlbox.lock.model import Package
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, artifact_of, subject_of
from mlbox.oci.image import ContainerConfig, Image
from mlbox.oci.reference import parse_reference
from mlbox.plan.model import AnyPiece, BuildPlan, EnvPiece, LayerPlan, ProjectPiece, WheelPiece
from mlbox.store.layers import Layer
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store

Wheels = Mapping[str, bytes]
"""Content of the one module of each wheel, by the wheel's name."""


def build(store: Store, folder: Path, name: str, wheels: Wheels, code: bytes = b"print()") -> Image:
    """Build an image: an environment, one layer of all `wheels`, one of the project, whose file is `code`."""
    paths = {wheel: _wheel(folder, wheel, content) for wheel, content in wheels.items()}
    pieces = {wheel: _piece(store, path) for wheel, path in paths.items()}
    plan = BuildPlan(
        arch="amd64",
        layers=(
            LayerPlan(
                name="python environment", kind="environment", pieces=(EnvPiece(python="3.11", python_full="3.11.2"),)
            ),
            LayerPlan(name="small", kind="environment", pieces=tuple(pieces.values())),
            LayerPlan(name="project", kind="project", pieces=(_project(code),)),
        ),
        config=ContainerConfig(cmd=("python",)),
        packages=tuple(
            Package(name=wheel, version="1.0", filename=path.name, sha256=_sha256(path), size=path.stat().st_size)
            for wheel, path in paths.items()
        ),
    )
    image = assemble_image(plan, [_layer(store, layer, paths, code) for layer in plan.layers])
    store.images.add(image)
    attach(store, image, plan)
    store.images.tag(image.digest, parse_reference(name))
    return image


def attach(store: Store, image: Image, plan: BuildPlan) -> None:
    """Attach a plan and a lock, as a build does."""
    subject = subject_of(image.digest, image.manifest_bytes)
    store.referrers.add(artifact_of(LOCK_TYPE, b"lock " + plan.key.encode()), subject)
    store.referrers.add(artifact_of(PLAN_TYPE, encode_plan(plan)), subject)


def _wheel(folder: Path, name: str, content: bytes) -> Path:
    place = folder / hashlib.sha256(content).hexdigest()[:8]
    place.mkdir(exist_ok=True)
    return make_wheel(place, {f"{name}.py": content}, name=name)


def _piece(store: Store, path: Path) -> WheelPiece:
    plain = piece_of(path)
    return WheelPiece(
        name=plain.name,
        version=plain.version,
        filename=plain.filename,
        sha256=store.artifacts.add_file(path),
        python=plain.python,
    )


def _project(code: bytes) -> ProjectPiece:
    return ProjectPiece(workdir=f"/work-{hashlib.sha256(code).hexdigest()}", python="3.11", files=())


def _layer(store: Store, layer: LayerPlan, paths: Mapping[str, Path], code: bytes) -> Layer:
    return store.layers.assemble(layer.key, layer.name, [_stored(store, piece, paths, code) for piece in layer.pieces])


def _stored(store: Store, piece: AnyPiece, paths: Mapping[str, Path], code: bytes) -> StoredPiece:
    if isinstance(piece, WheelPiece):
        return store.pieces.make(piece.key, piece.name, lambda root: unpack_wheel(paths[piece.name], root, piece))
    if isinstance(piece, EnvPiece):
        return store.pieces.make(piece.key, "env", lambda root: fill_env(root, piece))
    return store.pieces.make(piece.key, "project", lambda root: hashed(root, {"workspace/train.py": code}))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
