"""The commands of a RUN line that install packages, and what is left when those are taken. Nothing is run."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mlbox.project.proposal import Proposal, Suggestion, Wish
from mlbox.project.requirement import without_credentials
from mlbox.project.settings import DEB

MAX_WORDS = 5000
"""Words of one RUN."""

_UNREAD = " is not taken"
_BETWEEN = frozenset({"&&", "||", ";", "|", "&", "\n"})
_HARMLESS = frozenset({"set", "rm", "echo", "true", ":", "export", "ldconfig", "mkdir", "cd", "apt-mark", "localedef"})
_SHELL = frozenset({"if", "elif", "else", "for", "while", "until", "case", "esac", "[", "test", "shift", "function"})
"""What only says when other commands run; those are read as if they did."""
_APT = frozenset({"apt", "apt-get", "aptitude"})
_APT_HARMLESS = frozenset({"update", "upgrade", "clean", "autoclean", "autoremove", "dist-upgrade", "purge", "remove"})
_TOOLS = frozenset({"pip", "setuptools", "wheel", "uv", "virtualenv", "poetry", "pipenv", "pdm"})
_WITH_VALUE = frozenset(
    {"-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-i", "--index-url", "--extra-index-url"}
    | {
        "-f",
        "--find-links",
        "--trusted-host",
        "--timeout",
        "--retries",
        "--cache-dir",
        "--root-user-action",
        "--python",
    }
    | {
        "--platform",
        "--only-binary",
        "--no-binary",
        "--progress-bar",
        "-t",
        "--target",
        "--default-timeout",
        "--prefix",
    }
)
_ADDRESS = re.compile(r"https?://[^\s]+")
TORCH_INDEX = re.compile(r"https?://[^\s]+/whl/(?:[a-z]+/)?(?P<name>cpu|cu[0-9]{3}|rocm[0-9.]+)/?")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[\w.,-]*\])?\s*(?:[=<>!~]=?=?[^;@\s]+)?", re.ASCII)


def read_commands(text: str, where: str) -> Proposal:
    """Return what a shell script installs by apt and pip; other commands are left."""
    found = Proposal()
    try:
        commands = list(_commands(text.replace("\\\n", " ")))
    except ValueError as problem:  # no closing quotation
        return Proposal(left=(f"{where}: {problem}",))
    for command in commands:
        found += _command(command, where)
    return _shortened(found)


def _shortened(found: Proposal) -> Proposal:
    """Return what was found; of a script, what is left is told as its first command and how many more."""
    unread = [text for text in found.left if text.endswith(_UNREAD)]
    if len(unread) < 2:
        return found
    count = len(unread) - 1
    more = f" and {count} more command{'s' if count > 1 else ''} are not taken"
    others = tuple(text for text in found.left if text not in unread)
    return msgspec.structs.replace(found, left=(unread[0].removesuffix(_UNREAD) + more, *others))


def _commands(text: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace = " \t\r"
    lexer.wordchars += "${}%@:,+^[]!"
    lexer.commenters = "#"
    command: list[str] = []
    for count, word in enumerate(lexer):
        if count >= MAX_WORDS:
            raise ValueError(f"more than {MAX_WORDS} words")
        if word in _BETWEEN:
            yield command
            command = []
        else:
            command.append(word)
    yield command


def _command(words: Sequence[str], where: str) -> Proposal:
    words = _without_wrapping(words)
    if not words or words[0] in _HARMLESS or words[0] in _SHELL:
        return Proposal()
    program = words[0].rpartition("/")[2]
    if program in _APT:
        return _apt(words[1:], where)
    rest = _pip_arguments(program, words[1:])
    if rest is not None:
        return _pip(rest, where)
    return _left(words, where)


def _left(words: Sequence[str], where: str, why: str = _UNREAD) -> Proposal:
    shown = without_credentials(" ".join(words))
    return Proposal(left=(f"{where}: {shown[:80]}{'…' if len(shown) > 80 else ''}{why}",))


def _without_wrapping(words: Sequence[str]) -> list[str]:
    """Return a command without what stands before it: variables, sudo, and groups of a shell."""
    found = [word for word in words if word not in ("(", ")", "{", "}", "then", "do", "fi", "done")]
    while found and (found[0] in ("sudo", "exec", "time") or re.match(r"[A-Za-z_]\w*=", found[0])):
        found = found[1:]
    return found


def _apt(words: Sequence[str], where: str) -> Proposal:
    plain = [word for word in words if not word.startswith("-")]
    if not plain or plain[0] in _APT_HARMLESS:
        return Proposal()
    if plain[0] != "install":
        return _left(("apt-get", *words), where)
    names = [word.partition("=")[0].partition(":")[0] for word in plain[1:]]
    good = [name for name in names if DEB.fullmatch(name)]
    left = [word for word, name in zip(plain[1:], names, strict=True) if name not in good]
    suggestion = Suggestion(key="system-packages", value=good, origin=where)
    found = Proposal(suggestions=(suggestion,) if good else ())
    return found + _left(left, where, " is no name of a package") if left else found


def _pip_arguments(program: str, words: Sequence[str]) -> Sequence[str] | None:
    """Return what follows 'install' of pip, whoever starts it; None when it is another program."""
    rest = [program, *words]
    if re.fullmatch(r"python[0-9.]*", program) and list(words[:2]) in (["-m", "pip"], ["-m", "uv"]):
        rest = list(words[1:])
    if rest[0] == "uv" and rest[1:2] == ["pip"]:
        rest = rest[1:]
    if re.fullmatch(r"pip[0-9.]*", rest[0]) is None:
        return None
    after = [word for word in rest[1:] if not word.startswith("-")]
    if after[:1] != ["install"]:
        return []
    place = rest.index("install")
    return [*rest[1:place], *rest[place + 1 :]]


def _pip(words: Sequence[str], where: str) -> Proposal:
    found = Proposal()
    left: list[str] = []
    position = 0
    while position < len(words):
        word, position = words[position], position + 1
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option in _WITH_VALUE and not equals:
            value = words[position] if position < len(words) else ""
            position += 1
        if option.startswith("-"):
            found += _pip_option(option, value, where)
        elif word in (".", "./") or re.fullmatch(r"\.\[[\w,-]*\]", word):
            continue  # the project itself, which is there anyway
        elif _REQUIREMENT.fullmatch(word):
            if re.split(r"[\[=<>!~]", word)[0].lower() not in _TOOLS:
                found += Proposal(wishes=(Wish(text=word, origin=where),))
        else:
            left.append(word)
    return found + _left(("pip install", *left), where) if left else found


def _pip_option(option: str, value: str, where: str) -> Proposal:
    def suggest(key: str, suggestion: Any) -> Proposal:  # noqa: ANN401 (a setting)
        return Proposal(suggestions=(Suggestion(key=key, value=suggestion, origin=where),))

    if option in ("-r", "--requirement") and value and "$" not in value:
        return suggest("requirements", [value.removeprefix("./")])
    if option not in ("-i", "--index-url", "--extra-index-url", "-f", "--find-links"):
        return Proposal()
    if torch := TORCH_INDEX.fullmatch(value):
        return suggest("accelerator", torch["name"])
    if not _ADDRESS.fullmatch(value) or "$" in value or without_credentials(value) != value:
        return _left((option, value), where)
    if option in ("-i", "--index-url"):
        return suggest("index-url", value)
    return suggest("find-links" if option in ("-f", "--find-links") else "extra-index-urls", [value])
