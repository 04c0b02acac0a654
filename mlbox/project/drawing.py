"""`mlbox init`: what a Dockerfile, a cog.yaml and the code itself suggest, checked against what is declared."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlbox.errors import ProjectError
from mlbox.files import write_atomic
from mlbox.project.model import Project, Requirement
from mlbox.project.problems import Problems
from mlbox.project.proposal import Proposal, Suggestion, Wish
from mlbox.project.reading import read_bytes
from mlbox.project.requirement import Place, normalize, parse_requirement
from mlbox.project.settings import Where, check_settings, read_settings
from mlbox.project.spec import REQUIREMENT_FILES

REQUIREMENTS = "requirements.txt"

_HEADER = "# Guessed by mlbox init: what the code imports or a Dockerfile installs. Check it, and give versions.\n"


def draw(root: Path, *, code: bool = True) -> Proposal:
    """Return what files that are no specs suggest, and with `code` what that imports.

    What cannot be read of them is left with its reason.
    """
    from mlbox.project.cog import FILE as COG
    from mlbox.project.cog import read_cog
    from mlbox.project.dockerfile import FILE as DOCKERFILE
    from mlbox.project.dockerfile import read_dockerfile
    from mlbox.project.imports import read_imports

    found = Proposal()
    readers: dict[str, Callable[[bytes], Proposal]] = {COG: read_cog, DOCKERFILE: read_dockerfile}
    for file, read in readers.items():
        if (root / file).is_file():
            try:
                found += read(read_bytes(root / file, root=root))
            except ProjectError as problem:
                found += Proposal(left=(problem.message if file in problem.message else f"{file}: {problem.message}",))
    return found + read_imports(root) if code else found


def usable(proposal: Proposal, project: Project | None, declared: frozenset[str], root: Path) -> Proposal:
    """Return what is not declared yet and what the checks of the settings accept; the rest is left.

    `declared` are the keys that the settings have. Without a project every wish counts.
    """
    taken: list[Suggestion] = []
    left = list(proposal.left)
    for key, one in proposal.settings().items():
        if key in declared:
            continue
        if _counts_already(one, project):
            continue
        if problem := _problem(one, project, root):
            left.append(f"{one.origin}: {key} = {_shown(one.value)} is not taken: {problem}")
        else:
            taken.append(one)
    asked = {_name(requirement) for requirement in project.requirements} if project else set()
    wishes = []
    for wish in proposal.wishes:
        try:
            parsed = parse_requirement(wish.text, Place(root=root, folder=root, origin=wish.origin))
        except ProjectError as problem:
            left.append(f"{wish.origin}: {problem.message}")
            continue
        if isinstance(parsed, Requirement) and parsed.kind != "folder" and _name(parsed) not in asked:
            wishes.append(msgspec.structs.replace(wish, text=parsed.text))
            asked.add(_name(parsed))
    return Proposal(suggestions=tuple(taken), wishes=tuple(wishes), left=tuple(left))


def _name(requirement: Requirement) -> str:
    return normalize(re.split(r"[^A-Za-z0-9._-]", requirement.text, maxsplit=1)[0])


def _counts_already(one: Suggestion, project: Project | None) -> bool:
    counting = {source.path for source in project.sources if source.used} if project else set()
    return one.key == "requirements" and set(one.value) <= counting


def _problem(one: Suggestion, project: Project | None, root: Path) -> str:
    """Return why a suggestion cannot be a setting; empty when it can."""
    if one.key == "requirements" and project:
        counting = [source.path for source in project.sources if source.used]
        if project.foreign or project.conda or not set(counting) <= {*REQUIREMENT_FILES, "mlbox.toml"}:
            return "other specs count; name what is to count in the settings"
    if one.key == "python" and project and not _admits(project.requires_python, one.value):
        return f"requires-python is {project.requires_python!r}"
    problems = Problems()
    where = Where("mlbox.toml")
    check_settings(read_settings({one.key: one.value}, where, problems), where, root, problems)
    try:
        problems.check()
    except ProjectError as problem:
        return problem.message.partition(": ")[2] or problem.message
    return ""


def _admits(requires_python: str, minor: str) -> bool:
    from packaging.specifiers import SpecifierSet

    allowed = SpecifierSet(requires_python)
    return any(allowed.contains(f"{minor}.{patch}") for patch in (0, 99))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={_shown(one)}" for key, one in value.items())
    return str(value)


def told(proposal: Proposal) -> list[tuple[str, str, str]]:
    """Return what was drawn as (label, value, why), for people."""
    lines = [(one.key, _shown(one.value), f"from {one.origin}") for one in proposal.suggestions]
    lines += [("guess", wish.text, _why(wish)) for wish in proposal.wishes]
    return lines + [("not taken", text, "") for text in proposal.left]


def _why(wish: Wish) -> str:
    return wish.origin if wish.sure else f"{wish.origin}; only a module is called so"


def write_requirements(root: Path, proposal: Proposal) -> Path:
    """Write the wishes as requirements.txt, those that are not sure as comments; an existing file stays."""
    path = root / REQUIREMENTS
    if path.exists() or path.is_symlink():
        raise ProjectError(f"{REQUIREMENTS} is there already", hint="add the packages that it lacks yourself")
    lines = [f"{'' if wish.sure else '# '}{wish.text}  # {_why(wish)}\n" for wish in proposal.wishes]
    write_atomic(path, (_HEADER + "".join(lines)).encode())
    return path


def as_setting(one: Suggestion) -> object:
    """Return a suggestion as people write it: commands are one string."""
    if one.key in ("command", "entrypoint") and isinstance(one.value, list):
        return shlex.join(one.value)
    if isinstance(one.value, dict) and isinstance(one.value.get("command"), list):
        return {**one.value, "command": shlex.join(one.value["command"])}
    return one.value
