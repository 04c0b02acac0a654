"""Pins of PyTorch's packages to one of its indexes (…/whl/cu126): another way to say which accelerator is meant."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from mlbox.errors import ProjectError
from mlbox.project.marker import parse_marker
from mlbox.project.model import IndexPin
from mlbox.project.requirement import without_credentials
from mlbox.project.shell import TORCH_INDEX

_FAMILY = frozenset({"torch", "torchvision", "torchaudio", "triton", "pytorch-triton", "pytorch-triton-rocm"})
_OWN_HOST = "download.pytorch.org"


_BUILDS = (102, 111, 113, 115, 116, 117, 118, 121, 124, 126, 128, 129, 130, 132)
"""The versions of CUDA that PyTorch has been built for, since 1.8: their numbers in the names of its indexes."""


def accelerator_of_cuda(major: str, minor: str) -> str:
    """Return the accelerator for a base with this CUDA: wheels bring their own, of that version or an older minor."""
    version = int(f"{major}{minor}")
    fitting = [build for build in _BUILDS if version // 10 * 10 <= build <= version]
    return f"cu{max(fitting)}" if fitting else ""


class Meant(NamedTuple):
    """What the pins say."""

    accelerator: str = ""
    indexes: dict[str, str] = {}
    """Where its builds are, when that is not PyTorch's own place."""
    why: str = ""
    others: tuple[IndexPin, ...] = ()
    """Pins that are about something else."""


def accelerator_of_pins(pins: Sequence[IndexPin]) -> Meant:
    """Return the accelerator that pins of torch name, and the pins that stay: those of other packages and places."""
    named = {pin: found["name"] for pin in pins if (found := TORCH_INDEX.fullmatch(pin.url)) and pin.package in _FAMILY}
    others = tuple(pin for pin in pins if pin not in named)
    meant = next((pin for pin in named if pin.package == "torch" and _on_linux(pin.marker)), None)
    if meant is None or without_credentials(meant.url) != meant.url:
        return Meant(others=others if meant is None else tuple(pins))
    own = urlsplit(meant.url).hostname == _OWN_HOST
    indexes = {} if own else {named[meant]: meant.url}
    return Meant(named[meant], indexes, f"the pin of torch to index {meant.index!r}", others)


def _on_linux(marker: str) -> bool:
    """Whether a pin holds on the servers that images are for."""
    if not marker:
        return True
    from packaging.markers import default_environment

    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
    environment: dict[str, str] = {**{key: str(value) for key, value in default_environment().items()}, **linux}
    try:
        return parse_marker(marker).evaluate({**environment, "extra": ""})
    except ProjectError:
        return False
