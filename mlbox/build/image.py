"""The image of a plan whose layers are there."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from mlbox.oci.image import ContainerConfig, History, Image, ImageConfig, RootFS, image_of
from mlbox.plan.model import BuildPlan
from mlbox.plan.planner import created
from mlbox.store.layers import Layer


def assemble_image(
    plan: BuildPlan,
    layers: Sequence[Layer],
    below: ImageConfig | None = None,
    activation: Mapping[str, str] = MappingProxyType({}),
) -> Image:
    """Return the image of `plan` over its built layers and the configuration of the image `below` them, if any.

    What `activation` sets and the plan does not is set too.

    Every byte follows from these.
    """
    when = created(plan.epoch)
    history = [History(created=when, created_by=f"mlbox: {layer.name}", comment=layer.reason) for layer in plan.layers]
    if below is not None and sum(not one.empty_layer for one in below.history) == len(below.rootfs.diff_ids):
        history = [*below.history, *history[len(below.rootfs.diff_ids) :]]
    config = ImageConfig(
        created=when,
        architecture=plan.arch,
        os="linux",
        variant=below.variant if below else "",
        config=_activated(plan.config, activation),
        rootfs=RootFS(diff_ids=tuple(layer.diff_id for layer in layers)),
        history=tuple(history),
    )
    return image_of(config, tuple(layer.descriptor for layer in layers))


def _activated(config: ContainerConfig, activation: Mapping[str, str]) -> ContainerConfig:
    known = {item.partition("=")[0] for item in config.env}
    more = tuple(f"{name}={value}" for name, value in sorted(activation.items()) if name not in known)
    return msgspec.structs.replace(config, env=(*config.env, *more)) if more else config
