"""The stage that sources are built in: what lies below a build and never gets into the image. Pure."""

from collections.abc import Iterator

from msgspec import UNSET

from mlbox.plan.model import (
    GROUND,
    AdditionPiece,
    BuildPlan,
    BuiltWheelPiece,
    DebPiece,
    ImageLayerPiece,
    LayerPlan,
    RootfsPiece,
)


def built_pieces(plan: BuildPlan) -> Iterator[BuiltWheelPiece]:
    """Yield the packages that the plan builds from source, in the order of its layers."""
    for layer in plan.layers:
        for piece in layer.pieces:
            if isinstance(piece, BuiltWheelPiece):
                yield piece


def ground_of(plan: BuildPlan, piece: BuiltWheelPiece) -> tuple[LayerPlan, ...]:
    """Return the layers that `piece` is built on, the lowest first; the stage's own is the last, if it has one."""
    if plan.build_base is UNSET or piece.build_debs is UNSET or piece.base is UNSET:
        below = tuple(layer for layer in plan.layers if layer.kind in GROUND)
    else:
        below = tuple(
            LayerPlan(name=f"build base {number}", kind="base", pieces=(ImageLayerPiece(diff_id=diff_id),))
            for number, diff_id in enumerate(piece.base, 1)
        )
    stage = stage_of(piece)
    return (*below, stage) if stage else below


def stage_of(piece: BuiltWheelPiece) -> LayerPlan | None:
    """Return the layer of compilers and headers that is laid over the ground of `piece`; None when there is none."""
    if piece.build_debs is UNSET or not piece.build_debs:
        return None
    added: dict[str, DebPiece] = {deb.name: deb for deb in piece.build_debs}
    whole = tuple(sorted({**{deb.name: deb for deb in piece.debs}, **added}.values(), key=lambda deb: deb.name))
    system: RootfsPiece | AdditionPiece
    if piece.base is UNSET:
        system = RootfsPiece(suite=piece.suite, arch=piece.arch, debs=whole, epoch=piece.epoch)
    else:
        system = AdditionPiece(suite=piece.suite, arch=piece.arch, debs=whole, base=piece.base, epoch=piece.epoch)
    return LayerPlan(
        name="build stage",
        kind="system",
        pieces=(*piece.build_debs, system),
        reason=f"{len(piece.build_debs)} packages that sources are compiled with",
    )
