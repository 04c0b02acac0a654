"""A build plan as text for people, and as JSON for programs."""

from collections.abc import Mapping

import msgspec

from mlbox.codec import canonical_json
from mlbox.plan.base import pinned
from mlbox.plan.model import BuildPlan, BuiltWheelPiece, ImageLayerPiece, LayerPlan
from mlbox.plan.stage import built_pieces, stage_of
from mlbox.project.model import Source
from mlbox.units import mega


class LayerState(msgspec.Struct, frozen=True, kw_only=True):
    """What the store already has of one planned layer."""

    built: bool = False
    size: int = 0
    """Bytes of the layer's tar when it is built; else 0."""
    fetch: int = 0
    """Bytes of artifacts that are still to be downloaded."""
    unpacked: int = 0
    """How many of its pieces are already unpacked."""


def as_text(plan: BuildPlan, states: Mapping[str, LayerState], sources: tuple[Source, ...]) -> str:
    """Return the plan as lines; `states` by layer key."""
    lines = [_source_line(source) for source in sources]
    lines.append(f"{'layer':<28} {'pieces':>6}  {'size':>10}  state")
    lines += [_layer_line(layer, states.get(layer.key, LayerState())) for layer in plan.layers]
    lines += _stage_lines(plan)
    fetch = sum(state.fetch for state in states.values())
    size = sum(state.size for state in states.values())
    lines.append(f"{len(plan.layers)} layers, {mega(size)} built, {mega(fetch)} to download")
    return "\n".join(lines)


def as_json(plan: BuildPlan, states: Mapping[str, LayerState], sources: tuple[Source, ...]) -> str:
    """Return the plan as one JSON document with every layer's key, pieces and state."""
    document = {
        "key": plan.key,
        "arch": plan.arch,
        "epoch": plan.epoch,
        "base": plan.base,
        "build-base": plan.build_base or None,
        "build-stage": next((stage_of(piece) for piece in built_pieces(plan)), None),
        "config": plan.config,
        "sources": sources,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "key": layer.key,
                "reason": layer.reason,
                "pieces": layer.pieces,
                "state": states.get(layer.key, LayerState()),
            }
            for layer in plan.layers
        ],
    }
    return msgspec.json.format(canonical_json(document), indent=2).decode()


def _stage_lines(plan: BuildPlan) -> list[str]:
    """Return what is built from source, how, and on what."""
    pieces = list(built_pieces(plan))
    lines = [f"built in a container, pinned by its output: {_how(piece)}" for piece in pieces]
    below = [f"the image {pinned(plan.build_base)}"] if plan.build_base else []
    if stage := next((stage for piece in pieces if (stage := stage_of(piece))), None):
        below.append(f"{len(stage.pieces) - 1} Debian packages")
    return [*lines, *([f"compiled with {' and '.join(below)}, which are not in the image"] if below else [])]


def _how(piece: BuiltWheelPiece) -> str:
    source = piece.source
    said = [", ".join(source.compiled)] if source.compiled else []
    if source.gpu_architectures:
        said.append(f"for {', '.join(source.gpu_architectures)}")
    if source.build_gpu:
        said.append("with the host's GPUs, so it may differ elsewhere")
    if source.build_network:
        said.append("with the network, so it may differ later")
    return f"{source.name} {source.version}" + (f" ({'; '.join(said)})" if said else "")


def _source_line(source: Source) -> str:
    return f"{'read' if source.used else 'left'}  {source.path}: {source.reason}"


def _layer_line(layer: LayerPlan, state: LayerState) -> str:
    size = mega(state.size) if state.built else "-"
    return f"{layer.name[:28]:<28} {len(layer.pieces):>6}  {size:>10}  {_state(layer, state)}; {layer.reason}"


def _state(layer: LayerPlan, state: LayerState) -> str:
    if state.built:
        return "cached"
    if isinstance(layer.pieces[0], ImageLayerPiece):
        return f"to fetch, {mega(state.fetch)}"
    if state.fetch:
        return f"to build, downloads {mega(state.fetch)}"
    if layer.kind == "run":
        return "to run"
    missing = len(layer.pieces) - state.unpacked
    return f"to build, {missing} to unpack" if missing else "to assemble"
