"""Poetry's constraints in the words of PEP 440 and of markers; Poetry's own parser is the judge."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from poetry.core.constraints.version import Version as PoetryVersion
from poetry.core.constraints.version import parse_constraint as poetry_parse

from mlbox.errors import ProjectError
from mlbox.project.constraint import as_python_marker, as_specifier


@pytest.mark.parametrize(
    ("text", "specifier"),
    [
        ("^1.2.3", "<2.0.0,>=1.2.3"),
        ("^1.2", "<2.0,>=1.2"),
        ("^1", "<2,>=1"),
        ("^0.2.3", "<0.3.0,>=0.2.3"),
        ("^0.0.3", "<0.0.4,>=0.0.3"),
        ("^0.0", "<0.1,>=0.0"),
        ("^0", "<1,>=0"),
        ("~1.2.3", "<1.3.0,>=1.2.3"),
        ("~1", "<2,>=1"),
        ("1.2.*", "==1.2.*"),
        ("!=1.*", "!=1.*"),
        ("*", ""),
        (">=1 <2", "<2,>=1"),
        (">= 1.0, != 1.5 , < 2", "!=1.5,<2,>=1.0"),
        ("1.2", "==1.2"),
        ("==1.2+cu126", "==1.2+cu126"),
        ("^2.0.0-beta.1", "<3.0.0,>=2.0.0b1"),
        ("^1!2.3", "<1!3.0,>=1!2.3"),
        ("^1.0 || ^3.0", "!=2.*,<4.0,>=1.0"),
        ("<1.5 | >1.5", "!=1.5"),
        (">=1,<1.4 || >=1.5,<2", "!=1.4.*,<2,>=1"),
        ("* || ^1", ""),
    ],
)
def test_specifiers(text: str, specifier: str) -> None:
    """The documented examples of Poetry, and choices with a hole that PEP 440 can say."""
    assert as_specifier(text) == specifier


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("^3.8", 'python_version >= "3.8" and python_version < "4.0"'),
        (">=3.8.1,<3.12", 'python_full_version >= "3.8.1" and python_version < "3.12"'),
        ("3.9.*", 'python_version == "3.9"'),
        ("~3.9", 'python_version >= "3.9" and python_version < "3.10"'),
        ("<3.8 || >=3.10", '(python_version < "3.8") or (python_version >= "3.10")'),
        (">3.8", 'python_full_version > "3.8.0"'),
        ("<=3.8", 'python_full_version <= "3.8.0"'),
        ("*", ""),
    ],
)
def test_markers(text: str, marker: str) -> None:
    """python_version has two numbers; where a third decides it is python_full_version."""
    assert as_python_marker(text) == marker


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "^",
        "latest",
        "^1.2,",
        ",^1.2",
        "^^1",
        "=1.2",
        "1.2 ;",
        "1.2; python_version<'3'",
        "1.2 @ https://h",
        "../x",
        "^1.2 ||",
        "|| ^1",
        ">1.2.*",
        "~=1",
        "1.*.2",
        "^1.2/3",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "^" * 5000,
        "^1.2 " * 1000,
    ],
    ids=range(21),
)
def test_refused(text: str) -> None:
    """What is no constraint, quickly."""
    with pytest.raises(ProjectError, match=r"is no version constraint|500 are allowed"):
        as_specifier(text)


@pytest.mark.parametrize("text", ["1.0 || 2.0", "^1 || ^3.5", "<1 || >=1.5", ">=1.0,<1.3 || >=2", "^1,!=3.1 || ^3"])
def test_choices_that_nothing_can_say(text: str) -> None:
    """An error with a way out, never another range."""
    with pytest.raises(ProjectError, match="a choice between ranges") as refused:
        as_specifier(text)
    assert "!=" in (refused.value.hint or "")


numbers = st.integers(0, 3)
versions = st.one_of(
    st.builds(str, numbers),
    st.builds("{}.{}".format, numbers, numbers),
    st.builds("{}.{}.{}".format, numbers, numbers, numbers),
    st.builds("{}.{}.{}.{}".format, numbers, numbers, numbers, numbers),
)
bounds = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["^", "~", ">=", ">", "<", "<=", "==", "!=", ""]), versions),
    st.builds("{}{}.*".format, st.sampled_from(["", "==", "!="]), st.builds("{}.{}".format, numbers, numbers)),
)
constraints = st.lists(st.lists(bounds, min_size=1, max_size=2).map(",".join), min_size=1, max_size=2).map(" || ".join)
PROBES = [f"{a}.{b}.{c}" for a in range(5) for b in range(5) for c in (0, 1, 3, 4)] + ["1.2.3.1", "0.0.0.2"]


@given(constraints)
@example("^0.0.3")
@example("<1.0 || >=2.0")
@example("^1 || ^3,0.0.*")
@example(">=5,<2 || >=3")
@example("^1,!=3.1 || ^3")
def test_as_poetry_reads_it(text: str) -> None:
    """A version is admitted when Poetry admits it, or the choice is refused."""
    try:
        ours = SpecifierSet(as_specifier(text))
    except ProjectError as refused:
        assert "a choice between ranges" in refused.message
        assert "||" in text
        return
    theirs = poetry_parse(text)
    for probe in PROBES:
        assert ours.contains(probe) == theirs.allows(PoetryVersion.parse(probe)), probe


# '==3.8' of Python is 3.8.0 alone as a version and every 3.8.x as a marker: Poetry has both readings.
pythons = st.builds("{}{}".format, st.sampled_from(["^", "~", ">=", ">", "<", "<="]), versions)


@given(st.lists(st.lists(pythons, min_size=1, max_size=2).map(",".join), min_size=1, max_size=3).map(" || ".join))
def test_python_as_poetry_reads_it(text: str) -> None:
    """A marker holds for the Pythons that the constraint admits; choices too."""
    marker = as_python_marker(text)
    theirs = poetry_parse(text)
    for probe in (f"{a}.{b}.{c}" for a in (1, 2, 3) for b in (0, 1, 2, 3) for c in (0, 1, 3)):
        environment = {"python_version": probe.rpartition(".")[0], "python_full_version": probe}
        holds = not marker or Marker(marker).evaluate(environment)
        assert holds == theirs.allows(PoetryVersion.parse(probe)), (probe, marker)
