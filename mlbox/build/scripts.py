"""Console scripts: what entry_points.txt asks for, and the launcher files pip would write for it."""

import re

import msgspec

from mlbox.errors import ArchiveError
from mlbox.plan.model import PREFIX

INTERPRETER = f"/{PREFIX}/bin/python"
"""pip writes its own sys.executable, which in a virtual environment is bin/python."""

# Byte for byte what pip 26 writes for a POSIX console or gui script.
_LAUNCHER = """\
#!{interpreter}
import sys
from {module} import {imported}
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit({function}())
"""
_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_REFERENCE = re.compile(rf"({_DOTTED})\s*:\s*({_DOTTED})\s*(?:\[[^\]]*\])?")
_BAD_NAME = re.compile(r"[/\\\x00-\x1f\x7f]")
_PIP = re.compile(r"pip(?:\d+(?:\.\d+)?)?")


class Script(msgspec.Struct, frozen=True):
    """A command and the callable behind it."""

    name: str
    module: str
    function: str

    def text(self) -> bytes:
        """Return the launcher file."""
        imported = self.function.partition(".")[0]
        text = _LAUNCHER.format(interpreter=INTERPRETER, module=self.module, imported=imported, function=self.function)
        return text.encode()


def read_entry_points(data: bytes, archive: str) -> dict[str, dict[str, str]]:
    """Return the groups of an entry_points.txt, as importlib.metadata reads them."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as problem:
        raise ArchiveError(f"{archive}: entry_points.txt is not UTF-8", hint="pin another version") from problem
    groups: dict[str, dict[str, str]] = {}
    group: dict[str, str] = {}
    for line in map(str.strip, lines):
        if line.startswith("[") and line.endswith("]"):
            group = groups.setdefault(line[1:-1].strip(), {})
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            group[name.strip()] = value.strip()
    return groups


def scripts_of(groups: dict[str, dict[str, str]], python: str, archive: str) -> tuple[Script, ...]:
    """Return the scripts of `groups` for Python `python`; a name or reference that cannot work raises ArchiveError."""
    console = _versioned(groups.get("console_scripts", {}), python)
    wanted = {**console, **groups.get("gui_scripts", {})}
    return tuple(_script(name, value, archive) for name, value in wanted.items())


def _versioned(console: dict[str, str], python: str) -> dict[str, str]:
    # pip's own wheel names its commands for one Python; pip renames them for the one it installs to.
    if "pip" not in console:
        return console
    names = ("pip", f"pip{python.partition('.')[0]}", f"pip{python}")
    others = {name: value for name, value in console.items() if not _PIP.fullmatch(name)}
    return dict.fromkeys(names, console["pip"]) | others


def _script(name: str, value: str, archive: str) -> Script:
    if not name or name in (".", "..") or _BAD_NAME.search(name) or len(name.encode()) > 255:
        raise ArchiveError(
            f"{archive}: entry_points.txt asks for a script named {name!r}, which is no file name",
            hint="pin another version of the package",
        )
    match = _REFERENCE.fullmatch(value)
    if match is None:
        raise ArchiveError(
            f"{archive}: entry_points.txt: script {name!r} does not name a function: {value!r}",
            hint="it must read 'module:function'; pin another version of the package",
        )
    return Script(name, match[1], match[2])


def with_interpreter(data: bytes) -> bytes:
    """Return script `data` with a '#!python' first line pointing at the environment's interpreter."""
    if not data.startswith(b"#!python"):
        return data
    rest = data.partition(b"\n")[2]
    return b"#!" + INTERPRETER.encode() + b"\n" + rest
