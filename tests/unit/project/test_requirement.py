"""One requirement in every form pip allows."""

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Pep508

from mlbox.errors import ProjectError
from mlbox.project.model import Requirement
from mlbox.project.requirement import (
    MAX_LENGTH,
    Itself,
    Place,
    local_path,
    parse_requirement,
    without_credentials,
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A project with a library and a wheel; requirements stand in requirements/dev.txt."""
    (tmp_path / "libs/thing").mkdir(parents=True)
    (tmp_path / "libs/thing/pyproject.toml").touch()
    (tmp_path / "libs/empty").mkdir()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/thing-1.0-py3-none-any.whl").touch()
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/near.whl").touch()
    return Place(root=tmp_path, folder=tmp_path / "requirements", origin="requirements/dev.txt:1")


GOOD = [
    ("numpy", "named", "numpy"),
    ("numpy >= 1.20 , <3", "named", "numpy<3,>=1.20"),
    ("Foo_bar[b, a]==1.*; python_version<'3.13'", "named", 'Foo_bar[a,b]==1.*; python_version < "3.13"'),
    ("foo (>=1)", "named", "foo>=1"),
    ("foo===1.0-odd", "named", "foo===1.0-odd"),
    (
        "thing @ https://host/thing-1.0.whl#sha256=12 ; os_name=='posix'",
        "url",
        'thing @ https://host/thing-1.0.whl#sha256=12 ; os_name == "posix"',
    ),
    ("https://host/a/thing-1.0-py3-none-any.whl", "url", "thing @ https://host/a/thing-1.0-py3-none-any.whl"),
    ("https://host/thing-1.0.tar.gz#egg=thing", "url", "thing @ https://host/thing-1.0.tar.gz"),
    ("https://host/thing-1.0.tar.gz", "url", "https://host/thing-1.0.tar.gz"),
    (
        "git+https://host/thing.git@v1#egg=thing[x]&subdirectory=py",
        "vcs",
        "thing[x] @ git+https://host/thing.git@v1#subdirectory=py",
    ),
    ("git+ssh://git@host/thing.git", "vcs", "git+ssh://git@host/thing.git"),
    ("git+https://host/thing ; python_version>'3'", "vcs", 'git+https://host/thing ; python_version > "3"'),
    ("./libs/thing[x]", "folder", "./libs/thing[x]"),
    ("libs/thing ; python_version>'3'", "folder", './libs/thing ; python_version > "3"'),
    ("wheels/thing-1.0-py3-none-any.whl", "path", "./wheels/thing-1.0-py3-none-any.whl"),
    ("near.whl", "path", "./requirements/near.whl"),
    ("thing @ file:libs/thing", "folder", "./libs/thing"),
    ("thing @ ./libs/thing", "folder", "./libs/thing"),
]


@pytest.mark.parametrize(("text", "kind", "normal"), GOOD, ids=[row[0][:30] for row in GOOD])
def test_forms(place: Place, text: str, kind: str, normal: str) -> None:
    """Every form has one normal text, and normalising that changes nothing."""
    parsed = parse_requirement(text, place)

    assert isinstance(parsed, Requirement)
    assert (parsed.text, parsed.kind, parsed.origin) == (normal, kind, "requirements/dev.txt:1")
    assert parse_requirement(parsed.text, place) == msgspec.structs.replace(parsed, name="")


def test_editable(place: Place) -> None:
    """A folder is one either way; a git checkout is a git checkout either way."""
    folder = parse_requirement("libs/thing", place, editable=True)
    checkout = parse_requirement("git+https://host/t.git#egg=t", place, editable=True)

    assert folder == Requirement(text="./libs/thing", origin=place.origin, kind="folder")
    assert checkout == Requirement(text="t @ git+https://host/t.git", origin=place.origin, kind="vcs")


@pytest.mark.parametrize("text", [".", "./", ".[dev,Test_all]", "file:.", "mine @ file:.", "libs/.."])
def test_the_project_itself(place: Place, text: str) -> None:
    """It is no requirement of its own; its extras are kept."""
    extras = ("test-all", "dev") if "[" in text else ()
    assert parse_requirement(text, place, editable=True) == Itself(extras=tuple(sorted(extras)))


def test_absolute_path_inside(place: Place) -> None:
    """An absolute path and URL become relative, so that locks do not name this machine."""
    wheel = place.root / "wheels/thing-1.0-py3-none-any.whl"
    for text in (str(wheel), wheel.as_uri(), f"thing @ {wheel.as_uri()}"):
        parsed = parse_requirement(text, place)
        assert isinstance(parsed, Requirement)
        assert local_path(parsed) == "./wheels/thing-1.0-py3-none-any.whl"


BAD = [
    ("../elsewhere", "leaves"),
    ("~/elsewhere", "does not exist"),
    ("/etc", "leaves"),
    ("link", "link"),
    ("./missing", "does not exist"),
    ("libs/empty", "neither pyproject.toml nor setup.py"),
    ("requirements/near.txt", "does not exist"),
    ("numpy=1.0", "invalid requirement"),
    ("numpy torch", "invalid requirement"),
    ("numpy>=${VERSION}", "invalid requirement"),
    ("svn+https://host/x", "svn"),
    ("ftp://host/x.whl", "ftp"),
    ("git+git@host:a/b.git", "is no URL"),
    ("git+file:///srv/a.git", "nothing can be fetched by"),
    ("file://machine/x.whl", "another machine"),
    ("https://[host/x.whl", "invalid URL"),
    (". ; python_version>'3'", "marker"),
    ("x" * (MAX_LENGTH + 1), "characters"),
    ("a;" + "(" * 4000, "invalid requirement"),
    ("a; sys_platform === 'linux'", "has no answer"),
    ("a; python_version ~= 'x'", "has no answer"),
    ("a; 'b' in extras", "has no answer"),
    ("./a\0b", "null|NUL|does not exist"),
    ("./" + "a" * 3000, "too long"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[row[0][:20] for row in BAD])
def test_refused(place: Place, text: str, message: str) -> None:
    """What cannot be installed is refused with its reason."""
    (place.root / "link").symlink_to("/etc")
    with pytest.raises(ProjectError, match=message if text != "link" else "leaves"):
        parse_requirement("./link" if text == "link" else text, place)


def test_archives_are_never_editable(place: Place) -> None:
    """As in pip."""
    with pytest.raises(ProjectError, match="editable"):
        parse_requirement("https://host/x.zip", place, editable=True)


def test_messages_have_no_passwords(place: Place) -> None:
    """Requirement files often carry tokens; errors end up in logs."""
    with pytest.raises(ProjectError) as refused:
        parse_requirement("svn+https://me:secret@host/x", place)
    assert "secret" not in str(refused.value)
    assert without_credentials("a @ https://me:pw@host/x@1") == "a @ https://host/x@1"


_names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True)
_versions = st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}((a|b|rc)[0-9])?(\.post[0-9])?", fullmatch=True)
_specifiers = st.lists(st.tuples(st.sampled_from(["==", "!=", "<=", ">=", "<", ">", "~="]), _versions), max_size=3)
_space = st.sampled_from(["", " ", "\t", "  "])


@given(name=_names, specifiers=_specifiers, space=_space)
@example(name="a", specifiers=[(">", "1"), (">", "1.0")], space="")
def test_normal_form_is_that_of_packaging(name: str, specifiers: list[tuple[str, str]], space: str) -> None:
    """The short cut for plain lines gives what packaging gives, or refuses what packaging refuses."""
    text = f"{name}{space}" + f"{space},{space}".join(f"{operator}{space}{v}" for operator, v in specifiers)
    place = Place(root=Path("/nowhere"), folder=Path("/nowhere"), origin="x")
    try:
        expected = str(Pep508(text))
    except InvalidRequirement:
        with pytest.raises(ProjectError):
            parse_requirement(text, place)
    else:
        parsed = parse_requirement(text, place)
        assert isinstance(parsed, Requirement)
        assert parsed.text == expected


@given(st.text(max_size=60) | st.text(alphabet="a.-/@:;[]#'\"=<>~git+htps file", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Nothing but ProjectError leaves the parser."""
    place = Place(root=Path("/nowhere"), folder=Path("/nowhere"), origin="x")
    for editable in (False, True):
        with suppress(ProjectError):
            parse_requirement(text, place, editable=editable)
