"""What an image of a registry gives to those that stand on it: its layers, and part of its configuration. Pure."""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, UnsetType

from mlbox.lock.model import Base, Deb, Lock
from mlbox.oci.digest import DiffID
from mlbox.plan.model import HOME, PATH, PREFIX, AdditionPiece, DebPiece, ImageLayerPiece, LayerPlan
from mlbox.project.model import Settings

_SHOWN = len("sha256:") + 12
_DESCRIPTION = "org.opencontainers.image."


def image_layers(lock: Lock) -> list[LayerPlan]:
    """Return the layers of the image below as they are, and one with the debs that are added."""
    base, count = lock.base, len(lock.base.layers)
    short = base.reference.rpartition("/")[2].partition("@")[0]
    layers = [
        LayerPlan(
            name=f"{short} {number}/{count}",
            kind="base",
            pieces=(ImageLayerPiece(diff_id=layer.diff_id),),
            reason=f"{base.reference.partition('@')[0]}@{base.digest[:_SHOWN]}…",
        )
        for number, layer in enumerate(base.layers, 1)
    ]
    if lock.debs:
        debs = deb_pieces(lock.debs, lock.epoch)
        added = AdditionPiece(
            suite=base.suite, arch=lock.target.arch, debs=debs, base=base_layers(base) or (), epoch=lock.epoch
        )
        wanted = (*lock.system_packages, *(() if base.home or lock.conda else ("python3",)))
        reason = f"{', '.join(wanted)} and what they need beyond the base: {len(debs)} packages"
        layers.append(LayerPlan(name="system packages", kind="system", pieces=(*debs, added), reason=reason))
    return layers


def pinned(base: Base) -> str:
    """Return the image's name with the digest it is locked to."""
    return base.reference if "@" in base.reference else f"{base.reference}@{base.digest}"


def base_layers(base: Base) -> tuple[DiffID, ...] | UnsetType:
    """Return the layers of the image below, as pieces hold them: unset when there is none."""
    return tuple(layer.diff_id for layer in base.layers) if base.kind == "image" else UNSET


def home_of(lock: Lock, base: Base | None = None) -> str | UnsetType:
    """Return the folder of the interpreter, as pieces hold it: unset when it is HOME.

    `base` is what the interpreter is of, when not the lock's own.
    """
    if lock.conda:
        return f"/{PREFIX}/bin"
    home = (base or lock.base).home
    return home if home not in ("", HOME) else UNSET


def deb_pieces(debs: Sequence[Deb], epoch: int) -> tuple[DebPiece, ...]:
    """Return the piece of each deb."""
    return tuple(
        DebPiece(name=deb.name, version=deb.version, arch=deb.arch, sha256=deb.sha256, epoch=epoch) for deb in debs
    )


def image_environment(lock: Lock, settings: Settings) -> dict[str, str]:
    """Return the variables containers start with: the base's, and mlbox's before and over them; the settings' win."""
    below = dict(item.partition("=")[::2] for item in lock.base.env)
    # It would lead the environment's Python away from the environment.
    below.pop("PYTHONHOME", None)
    path = search_path(below)
    prefix = "CONDA_PREFIX" if lock.conda else "VIRTUAL_ENV"
    fixed = {"PATH": path, prefix: f"/{PREFIX}"}
    ours = {"PATH": path, "LANG": "C.UTF-8", prefix: f"/{PREFIX}", "PYTHONUNBUFFERED": "1"}
    return ours | below | fixed | settings.env


def search_path(below: Mapping[str, str]) -> str:
    """Return where programs are looked for over an image with the variables `below`: first in the environment."""
    return f"/{PREFIX}/bin:{below['PATH']}" if below.get("PATH") else PATH


def image_labels(base: Base) -> dict[str, str]:
    """Return the labels of the image below; how it describes itself gives way to its name and digest.

    (image-spec, annotations: base.name and base.digest.) A Debian base has none.
    """
    if base.kind == "debian":
        return {}
    labels = dict(item.partition("=")[::2] for item in base.labels)
    kept = {name: value for name, value in labels.items() if not name.startswith(_DESCRIPTION)}
    return {**kept, f"{_DESCRIPTION}base.name": base.reference, f"{_DESCRIPTION}base.digest": base.digest}
