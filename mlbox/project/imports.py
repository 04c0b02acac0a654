"""What the code of a repository imports, as a list of packages that it may need: guesses, and marked as such."""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlbox.errors import ProjectError
from mlbox.project.modules import DISTRIBUTIONS, SAME
from mlbox.project.proposal import Proposal, Wish
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import normalize
from mlbox.project.script import code_cells, script_metadata, source_of
from mlbox.project.shell import read_commands
from mlbox.project.tables import strings

MAX_FILES = 2000
MAX_SIZE = 2**20
"""Bytes of one source; notebooks with figures may have more, and are read up to the limit of all specs."""

_SKIPPED = frozenset({"build", "dist", "node_modules", "site-packages", "test", "tests", "docs", "doc", "__pycache__"})
_OWN_FILES = frozenset({"setup.py", "conftest.py", "noxfile.py", "fabfile.py", "tasks.py"})
_MAGIC = re.compile(
    r"(?m)^(?P<before>[ \t]*+(?:[^\s=%!][^\n=%!]*+=[ \t]*+)?)[%!](?P<command>.*)$|^[ \t]*+(?:\?.*|[\w.]++\?\??)$"
)
"""What IPython takes and Python does not: magics and commands, assigned or not, and questions."""
_CELL_MAGIC = re.compile(r"\s*%%(?P<name>\w+)")
_OF_PYTHON = frozenset({"time", "timeit", "capture", "prun"})
"""Magics of a whole cell whose rest is Python."""


def read_imports(root: Path) -> Proposal:
    """Return what scripts and notebooks below `root` import and do not bring themselves, and their PEP 723 blocks."""
    files = list(_sources(root))
    own = _own_modules(files, root)
    found = Proposal(
        left=(f"more than {MAX_FILES} sources: only the first are read",) if len(files) >= MAX_FILES else ()
    )
    wishes: dict[str, Wish] = {}
    for path in files:
        shown = path.relative_to(root).as_posix()
        try:
            one = _file(path, shown, own)
        except ProjectError as problem:
            found += Proposal(left=(f"{shown}: {problem.message}",))
            continue
        found += Proposal(left=one.left)
        for wish in one.wishes:
            name = normalize(re.split(r"[^A-Za-z0-9._-]", wish.text)[0])
            if name not in wishes or (wish.sure, wish.text != name) > (wishes[name].sure, wishes[name].text != name):
                wishes[name] = wish
    return found + Proposal(wishes=tuple(wishes[name] for name in sorted(wishes)))


def _sources(root: Path) -> Iterator[Path]:
    """Yield scripts and notebooks, without environments, tests, builds and what is hidden."""
    count = 0
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        if folder != root and any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            if entry.is_symlink() or entry.name.startswith(".") or not entry.name.isprintable():
                continue  # a name of several lines would be lines of the requirements that are written
            if entry.is_dir() and entry.name not in _SKIPPED:
                folders.append(entry)
            elif entry.suffix in (".py", ".ipynb") and entry.name not in _OWN_FILES and entry.is_file():
                count += 1
                if count > MAX_FILES:
                    return
                yield entry


def _own_modules(files: list[Path], root: Path) -> frozenset[str]:
    """Return the names under which the repository's own code may be imported: any of its files and folders."""
    names = {path.stem for path in files if path.suffix == ".py"}
    return frozenset(names | {part for path in files for part in path.relative_to(root).parts[:-1]})


def _file(path: Path, shown: str, own: frozenset[str]) -> Proposal:
    data = read_bytes(path)
    if path.suffix == ".py" and len(data) > MAX_SIZE:
        raise ProjectError(f"is larger than {MAX_SIZE // 1024} KiB")
    text = source_of(data, shown)
    metadata = script_metadata(text)
    if metadata is not None:
        wishes = tuple(Wish(text=line, origin=f"{shown} [script]") for line in strings(metadata, "dependencies"))
        return Proposal(wishes=wishes)
    if path.suffix == ".ipynb":
        return _notebook(data, shown, own)
    return Proposal(wishes=tuple(_wishes(text, shown, own)))


def _notebook(data: bytes, shown: str, own: frozenset[str]) -> Proposal:
    """Return what the cells import and install; one that cannot be read takes no other with it."""
    found = Proposal()
    line = 0
    for number, cell in enumerate(code_cells(data), 1):
        installs = [magic["command"] or "" for magic in _MAGIC.finditer(cell)]
        pips = [command for command in installs if "pip" in command.split()[:2]]
        found += Proposal(wishes=read_commands("\n".join(pips), shown).wishes)
        whole = _CELL_MAGIC.match(cell)
        try:
            if not whole or whole["name"] in _OF_PYTHON:
                text = _MAGIC.sub(lambda magic: f"{magic['before'] or ''}None", cell)
                found += Proposal(wishes=tuple(_wishes(text, shown, own, line)))
        except ProjectError as problem:
            found += Proposal(left=(f"{shown}: cell {number} {problem.message}",))
        line += cell.count("\n") + 2  # as `source_of` joins them
    return found


def _wishes(text: str, shown: str, own: frozenset[str], above: int = 0) -> Iterator[Wish]:
    """Yield what `text` imports, which stands below that many lines of its file."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ProjectError(f"is not read: no Python ({getattr(problem, 'msg', problem)})") from problem
    for module, line in sorted(set(_imported(tree.body, 0))):
        top = module.partition(".")[0]
        if top in own or top in sys.stdlib_module_names or not top.isascii():
            continue
        name = DISTRIBUTIONS.get(module) or DISTRIBUTIONS.get(top) or top
        sure = name != top or top in SAME or top in DISTRIBUTIONS
        yield Wish(text=name.replace("_", "-") if not sure else name, origin=f"{shown}:{above + line}", sure=sure)


def _imported(body: Sequence[ast.AST], depth: int) -> Iterator[tuple[str, int]]:
    """Yield modules with their lines, without those that the code can do without."""
    for node in body:
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module, node.lineno
            case ast.Try(handlers=handlers) if any(_catches_import(handler) for handler in handlers):
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from _imported(node.orelse, depth + 1)
            case _ if depth < 50:
                for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                    inner = getattr(node, field, None)
                    if isinstance(inner, list):
                        yield from _imported(inner, depth + 1)


def _catches_import(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError"})
