"""What a container gets of the host's devices, decided by others: this package knows no GPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from mlbox.cdi import ContainerEdits
from mlbox.loader import Library
from mlbox.runtime.options import RunOptions
from mlbox.runtime.record import Record


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Devices for one run of a container."""

    edits: ContainerEdits
    libraries: tuple[Library, ...] = ()
    """What its loader finds beside the image's own libraries."""
    preferred: Callable[[Path], tuple[Library, ...]] = lambda _: ()
    """What of the image itself goes before `libraries`, by its mounted root."""
    descriptors: tuple[int, ...] = ()
    """Open files that are held as long as the container runs."""


class Granter(Protocol):
    """Decides, as the host is now."""

    def check(self, options: RunOptions) -> None:
        """Raise MlboxError for what can never be had here."""

    def grant(self, record: Record) -> Grant:
        """Return the devices of a container that is about to start; may wait for them. Raises ContainerError."""
