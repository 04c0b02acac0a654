"""A lock and a project become a build plan. Nothing here looks at the machine."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET

from mlbox.codec import canonical_json
from mlbox.errors import LockError
from mlbox.lock.model import Lock, Package
from mlbox.oci.image import ContainerConfig
from mlbox.plan.base import base_layers, deb_pieces, home_of, image_environment, image_labels, image_layers
from mlbox.plan.bytecode import bytecode_piece
from mlbox.plan.conda import conda_layers, conda_pieces
from mlbox.plan.model import (
    PREFIX,
    RECIPE,
    BuildPlan,
    BuiltWheelPiece,
    BytecodePiece,
    ConfiguredPiece,
    EnvPiece,
    LayerPlan,
    ProjectFile,
    ProjectPiece,
    RootfsPiece,
    WheelPiece,
)
from mlbox.plan.run import add_run_layers
from mlbox.project.model import Package as ProjectPackage
from mlbox.project.model import Settings, Task

ACCELERATOR_LABEL = "dev.mlbox.accelerator"
"""Which accelerator an image is for."""


def make_plan(
    lock: Lock,
    settings: Settings,
    files: Sequence[ProjectFile],
    package: ProjectPackage | None,
    inputs: Sequence[Sequence[ProjectFile]] = (),
    folders: Sequence[ProjectPackage] = (),
) -> BuildPlan:
    """Return the plan of the image: base, system, environment and project layers, in that order.

    `folders` are the lock's, as distributions. The project's commands come after the last two; `inputs` are the files
    of each (see add_run_layers).
    """
    layers = [
        *(image_layers(lock) if lock.base.kind == "image" else _debian_layers(lock)),
        *_configured_layers(lock, settings),
        *(conda_layers(lock, settings) if lock.conda else ()),
        *_environment_layers(lock, settings),
    ]
    layers = add_run_layers(layers, "environment", lock, settings, inputs)
    layers += _project_layers(lock, settings, files, package, folders)
    layers = add_run_layers(layers, "project", lock, settings, inputs)
    return BuildPlan(
        arch=lock.target.arch,
        layers=tuple(layers),
        config=container_config(lock, settings),
        epoch=lock.epoch,
        base=lock.base if lock.base.kind == "image" else None,
        debs=(*lock.debs, *lock.build_debs),
        packages=lock.packages,
        build_packages=lock.build_packages,
        conda=lock.conda or UNSET,
        build_base=lock.build_base or UNSET,
    )


def container_config(lock: Lock, settings: Settings) -> ContainerConfig:
    """Return the defaults containers of the image start with.

    Of the image it stands on, what describes the system is kept: environment, user and labels. What starts that
    image's own program is not: entrypoint, command, working directory, ports, volumes, health check, stop signal.
    """
    serve = settings.serve
    return ContainerConfig(
        user=settings.user or lock.base.user,
        env=tuple(f"{key}={value}" for key, value in image_environment(lock, settings).items()),
        entrypoint=settings.entrypoint or None,
        cmd=_default_command(lock, settings),
        working_dir=settings.workdir,
        exposed_ports={f"{serve.port}/tcp": {}} if serve and serve.port else {},
        labels={
            **image_labels(lock.base),
            ACCELERATOR_LABEL: lock.target.accelerator,
            **({"dev.mlbox.python": lock.target.python_full} if lock.target.python else {}),
            **settings.labels,
        },
    )


def created(epoch: int) -> str:
    """Return `epoch` as the image-spec writes times (RFC 3339)."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _default_command(lock: Lock, settings: Settings) -> tuple[str, ...]:
    tasks: tuple[Task | None, ...] = (settings.serve, settings.train)
    declared = next((task.command for task in tasks if task), ())
    return settings.command or declared or (("python3",) if lock.target.python else ("bash",))


def _debian_layers(lock: Lock) -> list[LayerPlan]:
    base = deb_pieces([deb for deb in lock.debs if deb.role == "base"], lock.epoch)
    system = deb_pieces([deb for deb in lock.debs if deb.role == "system"], lock.epoch)
    suite, arch = lock.base.suite, lock.target.arch
    layers = [
        LayerPlan(
            name=f"debian {suite}",
            kind="base",
            pieces=(*base, RootfsPiece(suite=suite, arch=arch, debs=base, epoch=lock.epoch)),
            reason=f"{len(base)} packages of Debian {suite}"
            + ("" if lock.conda else f" with Python {lock.target.python_full}"),
        )
    ]
    if system:
        everything = tuple(sorted((*base, *system), key=lambda piece: piece.name))
        rootfs = RootfsPiece(suite=suite, arch=arch, debs=everything, epoch=lock.epoch)
        layers.append(
            LayerPlan(
                name="system packages",
                kind="system",
                pieces=(*system, rootfs),
                reason=f"{', '.join(lock.system_packages)} and what they need: {len(system)} packages",
            )
        )
    return layers


def _configured_layers(lock: Lock, settings: Settings) -> list[LayerPlan]:
    debs = {deb.name for deb in lock.debs}
    unknown = sorted(set(settings.configure) - debs - {package.name for package in lock.conda})
    if unknown:
        raise LockError(
            f"[tool.mlbox] configure names {', '.join(unknown)}, which is not in the image",
            hint="name it in system-packages too",
        )
    packages = tuple(sorted(debs.intersection(settings.configure)))
    if not packages:
        return []
    piece = ConfiguredPiece(
        suite=lock.base.suite,
        arch=lock.target.arch,
        debs=deb_pieces(lock.debs, lock.epoch),
        packages=packages,
        base=base_layers(lock.base),
        epoch=lock.epoch,
    )
    reason = f"what the scripts of {', '.join(piece.packages)} make; run in a container, pinned by its output"
    return [LayerPlan(name="configured packages", kind="configured", pieces=(piece,), reason=reason)]


def _environment_layers(lock: Lock, settings: Settings) -> list[LayerPlan]:
    target = lock.target
    packages = {package.name: package for package in lock.packages}
    layers = []
    if not lock.conda:
        env = EnvPiece(python=target.python, python_full=target.python_full, home=home_of(lock), epoch=lock.epoch)
        library = _standard_library(lock) if settings.bytecode else ()
        reason = f"/{PREFIX}, empty" + ("; byte code of the standard library" if library else "")
        layers.append(LayerPlan(name="python environment", kind="environment", pieces=(env, *library), reason=reason))
    for group in lock.layers:
        members = [packages[name] for name in group.packages]
        reason = "large, so alone" if len(members) == 1 else f"{len(members)} small packages"
        wheels = tuple(_package_piece(package, lock) for package in members)
        compiled = tuple(bytecode_piece(wheel, lock) for wheel in wheels) if settings.bytecode else ()
        layers.append(LayerPlan(name=group.name, kind="environment", pieces=(*wheels, *compiled), reason=reason))
    return layers


def _standard_library(lock: Lock) -> tuple[BytecodePiece, ...]:
    names = {f"libpython{lock.target.python}-{part}" for part in ("minimal", "stdlib")}
    return tuple(
        bytecode_piece(deb, lock) for deb in deb_pieces([deb for deb in lock.debs if deb.name in names], lock.epoch)
    )


def _package_piece(package: Package, lock: Lock) -> WheelPiece | BuiltWheelPiece:
    requested = bool(package.wanted_by)
    if package.is_wheel:
        return WheelPiece(
            name=package.name,
            version=package.version,
            filename=package.filename,
            sha256=package.sha256,
            python=lock.target.python,
            requested=requested,
            direct_url=direct_url(package),
            epoch=lock.epoch,
        )
    base = lock.build_base or lock.base
    staged = lock.build_base is not None or bool(lock.build_debs)
    return BuiltWheelPiece(
        source=_without_edges(package),
        build_packages=tuple(_without_edges(needed) for needed in lock.build_packages),
        debs=() if lock.build_base else deb_pieces(lock.debs, lock.epoch),
        python=lock.target.python,
        python_full=lock.target.python_full,
        suite=base.suite,
        arch=lock.target.arch,
        requested=requested,
        home=home_of(lock, base),
        conda=conda_pieces(lock) or UNSET,
        base=base_layers(base),
        env=base.env or UNSET,
        build_debs=deb_pieces(lock.build_debs, lock.epoch) if staged else UNSET,
        recipe=RECIPE if staged else UNSET,
        epoch=lock.epoch,
    )


def _without_edges(package: Package) -> Package:
    # Who asked for a package does not change what is in it.
    return msgspec.structs.replace(package, requires=(), wanted_by=())


def direct_url(package: Package) -> str:
    """Return the content of direct_url.json (PEP 610) for `package`; empty when it came from an index."""
    if not package.url:
        return ""
    record: dict[str, object] = {"url": package.url}
    if package.commit:
        record["vcs_info"] = {"vcs": "git", "commit_id": package.commit}
    else:
        record["archive_info"] = {"hashes": {"sha256": package.sha256}}
    if package.subdirectory:
        record["subdirectory"] = package.subdirectory
    return canonical_json(record).decode()


def _project_layers(
    lock: Lock,
    settings: Settings,
    files: Sequence[ProjectFile],
    package: ProjectPackage | None,
    folders: Sequence[ProjectPackage],
) -> list[LayerPlan]:
    piece = ProjectPiece(
        workdir=settings.workdir,
        python=lock.target.python,
        files=tuple(files),
        package=package,
        folders=tuple(folders) or UNSET,
        epoch=lock.epoch,
    )
    names = [f"{one.name} {one.version}" for one in piece.packages]
    installed = f", installed as {', '.join(names)}" if names else ""
    reason = f"{len(piece.files)} files of the project below {settings.workdir}{installed}"
    return [LayerPlan(name="project", kind="project", pieces=(piece,), reason=reason)]
