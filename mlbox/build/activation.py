"""What activating a conda environment sets, where its packages say it without a program: the image sets it for good."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mlbox.plan.model import PREFIX, BuildPlan
from mlbox.store.layers import Layer
from mlbox.store.store import Store

_VALUES = f"{PREFIX}/etc/conda/env_vars.d/"
_SCRIPTS = f"{PREFIX}/etc/conda/activate.d/"
_MOST = 1 << 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(?:'([^']*)'|\"([^\"`\\]*)\"|([^\s'\"`\\;&|<>()*?]*))\s*;?")
_OURS = re.compile(r"\$(?:\{CONDA_PREFIX\}|CONDA_PREFIX\b)")


class Activation(msgspec.Struct, frozen=True):
    """What is set, and which scripts would have to run to know more."""

    env: Mapping[str, str] = {}
    scripts: tuple[str, ...] = ()
    """Names of files in etc/conda/activate.d."""


def read_activation(store: Store, plan: BuildPlan, layers: Sequence[Layer]) -> Activation:
    """Return what the packages in the built `layers` of `plan` set; those that are not in the store set nothing."""
    found: dict[str, Path] = {}
    for planned, layer in zip(plan.layers, layers, strict=False):
        if planned.kind == "conda" and store.layers.has(layer.diff_id):
            root = store.layers.root(layer.diff_id)
            for entry in store.layers.entries(layer.diff_id):
                if entry.kind == "file" and entry.size <= _MOST and entry.path.startswith((_VALUES, _SCRIPTS)):
                    found[entry.path] = root / entry.path
    env: dict[str, str] = {}
    scripts = []
    for path in sorted(found):
        name = path.rpartition("/")[2]
        if path.startswith(_VALUES) and name.endswith(".json"):
            env |= _values(found[path].read_bytes())
        elif path.startswith(_SCRIPTS) and name.endswith(".sh"):
            try:
                env |= dict(static_variables(found[path].read_text("utf-8", "replace")))
            except ValueError:
                scripts.append(name)
    return Activation(env, tuple(scripts))


def static_variables(script: str) -> Iterator[tuple[str, str]]:
    """Yield the variables of a script that does nothing but set them; ValueError for any other."""
    for line in map(str.strip, script.splitlines()):
        if not line or line.startswith("#"):
            continue
        if re.fullmatch(rf"export\s+{_NAME.pattern}\s*;?", line):
            continue  # of a variable that a line before has set
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(line)
        name, verbatim, *others = match.groups()
        if verbatim is not None:
            yield name, verbatim
            continue
        value = _OURS.sub(f"/{PREFIX}", next((one for one in others if one is not None), ""))
        if "$" in value:
            raise ValueError(line)
        yield name, value


def _values(data: bytes) -> dict[str, str]:
    try:
        values = msgspec.json.decode(data, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {name: value for name, value in values.items() if _NAME.fullmatch(name) and "\0" not in value}
