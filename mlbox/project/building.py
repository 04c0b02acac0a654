"""What the settings say about building packages from source: checked, and in the words that lock and builds use."""

import re
from collections.abc import Callable, Mapping

from mlbox.project.model import BuildOptions

_ARCHITECTURE = re.compile(r"(?:sm_?|compute_)?([0-9]{1,2})\.?([0-9])([af]?)(\+PTX)?", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_KEY = re.compile(r"[^\s=\0]+")

Wrong = Callable[[str, str, str], None]
"""Takes a setting, what is wrong with it, and a hint."""


def architecture(text: str) -> str | None:
    """Return a GPU's architecture as PyTorch's builds write it: '9.0' for 'sm_90', '12.0+PTX'; None for none."""
    found = _ARCHITECTURE.fullmatch(text.strip())
    return f"{int(found[1])}.{found[2]}{found[3].lower()}{(found[4] or '').upper()}" if found else None


def check_build(name: str, options: BuildOptions, wrong: Wrong) -> None:
    """Tell what is impossible in [tool.mlbox.build.NAME]; its env is checked like any other."""
    key = f"build.{name}"
    if not _NAME.fullmatch(name):
        wrong(key, f"{name!r} is no name of a package", 'like [tool.mlbox.build."flash-attn"]')
    for setting, value in options.config_settings.items():
        values = (value,) if isinstance(value, str) else value
        if not _KEY.fullmatch(setting) or any("\0" in one for one in values):
            wrong(f"{key}.config-settings", f"{setting!r} is no key of a build setting", "")
    if bad := [line for line in options.requires if not _is_requirement(line)]:
        wrong(f"{key}.requires", f"{bad[0][:100]!r} is no requirement", 'like "torch" or "cmake>=3.26"')


def config_lines(settings: Mapping[str, str | tuple[str, ...]]) -> tuple[str, ...]:
    """Return config-settings as 'KEY=VALUE', sorted by key; the values of one key stay in their order."""
    pairs = [(key, (value,) if isinstance(value, str) else value) for key, value in sorted(settings.items())]
    return tuple(f"{key}={one}" for key, values in pairs for one in values)


def _is_requirement(text: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return not Requirement(text).url
    except InvalidRequirement:
        return False
