"""Which commands of the project run on which layers, each to one more."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from mlbox.codec import key_of
from mlbox.lock.model import Lock
from mlbox.plan.base import image_environment
from mlbox.plan.model import LayerPlan, ProjectFile, RunPiece
from mlbox.project.model import RunStep, Settings

_SHELL = ("/bin/sh", "-ec")
_SHOWN = 60
_PINNED = "run in a container{how}, pinned by its output, not reproducible from its inputs"


def add_run_layers(
    layers: Sequence[LayerPlan], after: str, lock: Lock, settings: Settings, inputs: Sequence[Sequence[ProjectFile]]
) -> list[LayerPlan]:
    """Return `layers` with one more for each command that runs when they are there.

    `inputs` are the files that each command of the settings names; a command without any need not be in it.
    """
    found = list(layers)
    for number, step in enumerate(settings.run):
        if step.after == after:
            files = inputs[number] if number < len(inputs) else ()
            found.append(_layer(f"run {number + 1}", step, lock, settings, tuple(files), below_key(found)))
    return found


def below_key(layers: Sequence[LayerPlan]) -> str:
    """Return what a command calls the layers that it runs on."""
    return key_of([layer.key for layer in layers])


def run_piece(layer: LayerPlan) -> RunPiece | None:
    """Return the command that makes the layer, None when it is made otherwise."""
    one = layer.pieces[0] if len(layer.pieces) == 1 else None
    return one if isinstance(one, RunPiece) else None


def shown(command: Sequence[str]) -> str:
    """Return a command as people write it."""
    if tuple(command[:2]) == _SHELL and len(command) == 3:
        return command[2]
    import shlex

    return shlex.join(command)


def title(command: Sequence[str]) -> str:
    """Return a command as one line that is not long."""
    text = " ".join(shown(command).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _layer(
    name: str, step: RunStep, lock: Lock, settings: Settings, files: tuple[ProjectFile, ...], below: str
) -> LayerPlan:
    piece = RunPiece(
        command=step.command,
        below=below,
        arch=lock.target.arch,
        workdir=settings.workdir,
        env=tuple(f"{key}={value}" for key, value in sorted(_environment(step, lock, settings).items())),
        inputs=files,
        input_names=tuple(sorted({str(PurePosixPath(name)) for name in step.inputs})),
        network=step.network,
        gpu=step.gpu,
        secrets=tuple(sorted(set(step.secrets))),
        epoch=lock.epoch,
    )
    how = "".join(word for word, given in ((" with the network", step.network), (" with GPUs", step.gpu)) if given)
    return LayerPlan(name=name, kind="run", pieces=(piece,), reason=f"{title(step.command)}; {_PINNED.format(how=how)}")


def _environment(step: RunStep, lock: Lock, settings: Settings) -> dict[str, str]:
    return {
        "HOME": "/root",
        "TZ": "UTC",
        "DEBIAN_FRONTEND": "noninteractive",
        # What keeps a run from saying when and by which chance it ran.
        "SOURCE_DATE_EPOCH": str(lock.epoch),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        **image_environment(lock, settings),
        **step.env,
    }
