"""Environment markers (PEP 508) that have an answer: the grammar also allows comparisons that mean nothing."""

from typing import TYPE_CHECKING

from mlbox.errors import ProjectError

if TYPE_CHECKING:
    from packaging.markers import Marker

_HINT = "markers look like: sys_platform == 'linux' and python_version < '3.13'"


def parse_marker(text: str) -> "Marker":
    """Return the marker that `text` is; ProjectError when it is none, or no machine has an answer to it."""
    from packaging.markers import InvalidMarker, Marker

    try:
        marker = Marker(text)
    except (InvalidMarker, RecursionError) as problem:
        reason = str(problem).splitlines()[0]
        raise ProjectError(f"{text[:200]!r} is no environment marker: {reason}", hint=_HINT) from problem
    check_marker(marker)
    return marker


def check_marker(marker: "Marker") -> None:
    """Refuse a marker that compares what cannot be compared, or names what only locks know ('extras')."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

    try:
        marker.evaluate({"extra": ""})
    except (UndefinedComparison, UndefinedEnvironmentName, RecursionError) as problem:
        raise ProjectError(f"the marker {str(marker)[:200]!r} has no answer: {problem}", hint=_HINT) from problem
