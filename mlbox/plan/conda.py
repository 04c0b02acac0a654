"""The layers of a conda environment. Pure."""

from msgspec import UNSET

from mlbox.lock.model import Lock
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


def conda_layers(lock: Lock, settings: Settings) -> list[LayerPlan]:
    """Return the environment's own layer, those of its packages, and what their scripts make where they are to run."""
    pieces = {piece.name: piece for piece in conda_pieces(lock)}
    layers = [
        LayerPlan(
            name="conda environment",
            kind="conda",
            pieces=(CondaEnvPiece(epoch=lock.epoch),),
            reason=f"/{PREFIX}, empty",
        )
    ]
    for group in lock.conda_layers:
        members = tuple(pieces[name] for name in group.packages)
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
