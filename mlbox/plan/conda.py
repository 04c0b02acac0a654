"""The layers of a conda environment. Pure."""

from collections.abc import Sequence

from msgspec import UNSET

from mlbox.lock.model import CondaPackage, Lock
from mlbox.plan.base import base_layers, deb_pieces
from mlbox.plan.bytecode import bytecode_piece
from mlbox.plan.model import PREFIX, CondaConfiguredPiece, CondaEnvPiece, CondaPiece, LayerPlan
from mlbox.project.model import Settings


def conda_pieces(lock: Lock) -> tuple[CondaPiece, ...]:
    """Return the piece of each conda package of the lock."""
    python = lock.target.python or UNSET
    return tuple(
        CondaPiece(
            name=one.name,
            version=one.version,
            build=one.build,
            subdir=one.subdir,
            channel=one.channel,
            filename=one.filename,
            sha256=one.sha256,
            python=python if one.subdir == "noarch" else UNSET,
            epoch=lock.epoch,
        )
        for one in lock.conda
    )


def linked_order(packages: Sequence[CondaPackage]) -> list[str]:
    """Return the names in the order that conda links them: a package after those that it asks for, else by name.

    So of two that have a file at one path the same one counts as with conda, within a layer.
    """
    requires = {one.name: one.requires for one in packages}
    level: dict[str, int] = {}
    met: set[str] = set()
    waiting = sorted(requires, reverse=True)
    while waiting:
        name = waiting[-1]
        met.add(name)
        if more := [one for one in requires[name] if one in requires and one not in met]:
            waiting += more
        elif name not in level:  # what is still waiting for this one asks for it in a circle
            level[name] = 1 + max((level[one] for one in requires[name] if one in level), default=0)
        else:
            waiting.pop()
    return sorted(level, key=lambda name: (level[name], name))


def conda_layers(lock: Lock, settings: Settings) -> list[LayerPlan]:
    """Return the environment's own layer, those of its packages, and what their scripts make where they are to run."""
    pieces = {piece.name: piece for piece in conda_pieces(lock)}
    order = {name: place for place, name in enumerate(linked_order(lock.conda))}
    layers = [
        LayerPlan(
            name="conda environment",
            kind="conda",
            pieces=(CondaEnvPiece(epoch=lock.epoch),),
            reason=f"/{PREFIX}, empty",
        )
    ]
    for group in lock.conda_layers:
        members = tuple(pieces[name] for name in sorted(group.packages, key=order.__getitem__))
        reason = "large, so alone" if len(members) == 1 else f"{len(members)} small packages"
        layers.append(LayerPlan(name=f"conda {group.name}", kind="conda", pieces=members, reason=reason))
    layers += _configured(lock, settings, pieces)
    # Compiled packages bring the byte code of their modules.
    noarch = [piece for piece in pieces.values() if settings.bytecode and piece.python is not UNSET]
    if noarch:
        compiled = tuple(bytecode_piece(piece, lock) for piece in noarch)
        reason = f"the byte code of {len(noarch)} packages"
        layers.append(LayerPlan(name="conda byte code", kind="environment", pieces=compiled, reason=reason))
    return layers


def _configured(lock: Lock, settings: Settings, pieces: dict[str, CondaPiece]) -> list[LayerPlan]:
    packages = tuple(sorted(pieces.keys() & set(settings.configure)))
    if not packages:
        return []
    below = base_layers(lock.base)
    ground = (*(below or ()), *(deb.key for deb in deb_pieces(lock.debs, lock.epoch)))
    piece = CondaConfiguredPiece(ground=ground, conda=tuple(pieces.values()), packages=packages, epoch=lock.epoch)
    reason = f"what the link scripts of {', '.join(packages)} make; run in a container, pinned by its output"
    return [LayerPlan(name="linked packages", kind="environment", pieces=(piece,), reason=reason)]
