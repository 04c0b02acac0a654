"""What the build needs a container for, said without knowing how containers are run."""

import re
from pathlib import Path
from typing import Protocol

import msgspec

_NO_NETWORK = re.compile(
    r"[Nn]ame resolution|[Cc]ould not resolve|Name or service not known|[Nn]etwork is unreachable|bad address '"
)
"""What glibc, curl, git and busybox say where there is only a loopback."""


def misses_network(output: str) -> bool:
    """Whether a program that printed this wanted a network and had none."""
    return _NO_NETWORK.search(output) is not None


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A host folder that a step sees at `target`."""

    source: Path
    target: str
    readonly: bool = True


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A command in a root file system made of `lower` (lowest first); what it writes elsewhere than binds is lost.

    Unless there is a folder for its `changes`: that becomes the upper directory of the overlay.
    """

    argv: tuple[str, ...]
    lower: tuple[Path, ...]
    binds: tuple[Bind, ...] = ()
    env: dict[str, str] = {}
    cwd: str = "/"
    network: bool = False
    changes: Path | None = None
    """An empty folder of the store's file system."""
    gpus: bool = False
    """Whether it sees all GPUs of the host."""


class StepRunner(Protocol):
    """Runs a step in a container; given to the build by the engine."""

    def run(self, step: Step) -> None:
        """Run `step` to its end; raises BuildError with the end of its output when it fails."""
