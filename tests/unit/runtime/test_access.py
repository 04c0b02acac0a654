"""Device rules: what differs between what a container was given and what the kernel has. Version 1, in files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.linux.bpf import Rule
from mlbox.linux.cgroup import Hierarchy
from mlbox.oci.runtime import DeviceCgroupRule, Linux, Resources, Spec
from mlbox.runtime import access
from mlbox.runtime.spec import DEVICE_RULES

GROUP = "/mlbox/one"
GIVEN = (Rule(True, "c", 195, 0, "rwm"), Rule(True, "c", 195, 255, "rw"), Rule(True, "c", 136, None, "rwm"))
BY_RUNC = "c *:* m\nb *:* m\nc 10:200 rwm\n"
RIGHT = BY_RUNC + "c 195:0 rwm\nc 195:255 rw\nc 136:* rwm\n"


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[Hierarchy, ...]:
    """A version 1 hierarchy of plain files."""
    (tmp_path / GROUP[1:]).mkdir(parents=True)
    for name in ("devices.allow", "devices.deny"):
        (tmp_path / GROUP[1:] / name).touch()
    return (Hierarchy(str(tmp_path), ("devices",), 1),)


def listed(mounted: tuple[Hierarchy, ...], text: str) -> None:
    Path(f"{mounted[0].path}{GROUP}/devices.list").write_text(text)


def test_the_rules_of_a_spec_are_what_it_allows() -> None:
    """The denial of everything is what the rest stands on."""
    gpu = DeviceCgroupRule(allow=True, type="c", major=195, minor=0, access="rw")
    spec = Spec(oci_version="1.0.2", linux=Linux(resources=Resources(devices=(*DEVICE_RULES, gpu))))
    rules = access.rules_of(spec)
    assert len(rules) == len(DEVICE_RULES)
    assert rules[-1] == Rule(True, "c", 195, 0, "rw")
    assert access.rules_of(Spec(oci_version="1.0.2")) == ()


def test_as_given(mounted: tuple[Hierarchy, ...]) -> None:
    """What the runtime adds to every container is no problem."""
    listed(mounted, RIGHT)
    assert access.problems(GROUP, GIVEN, mounted) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RIGHT.replace("c 195:0 rwm\n", ""), ["c 195:0 rw is denied, and should be allowed"]),
        (RIGHT.replace("c 195:0 rwm", "c 195:0 r"), ["c 195:0 w is denied, and should be allowed"]),
        (RIGHT + "c 195:1 rwm\n", ["c 195:1 rw is allowed, and should not be"]),
        (RIGHT.replace("195:0 rwm", "195:* rwm"), ["c 195:* rw is allowed, and should not be"]),
        (RIGHT + "b 8:0 r\n", ["b 8:0 r is allowed, and should not be"]),
        ("a *:* rwm\n", ["a *:* rwm is allowed, and should not be"]),
    ],
)
def test_what_differs_is_named(mounted: tuple[Hierarchy, ...], text: str, found: list[str]) -> None:
    """Making nodes is allowed anyway, so only opening counts."""
    listed(mounted, text)
    assert list(access.problems(GROUP, GIVEN, mounted)) == found


def test_only_what_differs_is_put_right(mounted: tuple[Hierarchy, ...]) -> None:
    """So nothing that works is interrupted."""
    listed(mounted, RIGHT.replace("c 195:0 rwm\n", "c 195:1 rwm\n"))
    access.enforce(GROUP, GIVEN, mounted)
    folder = Path(mounted[0].path + GROUP)
    assert (folder / "devices.allow").read_text() == "c 195:0 rw"
    assert (folder / "devices.deny").read_text() == "c 195:1 rw"


def test_where_everything_is_allowed_everything_is_made_anew(mounted: tuple[Hierarchy, ...]) -> None:
    """A wildcard hides later denials of less, which version 1 ignores."""
    listed(mounted, "a *:* rwm\n")
    access.enforce(GROUP, GIVEN, mounted)
    folder = Path(mounted[0].path + GROUP)
    assert (folder / "devices.deny").read_text() == "a"
    assert (folder / "devices.allow").read_text() == "c 10:200 rwm"  # the last of them: files keep one line


RULE = st.builds(
    Rule,
    st.just(True),
    st.sampled_from(["b", "c"]),
    st.none() | st.integers(0, 300),
    st.none() | st.integers(0, 300),
    st.sampled_from(["r", "w", "m", "rw", "rwm"]),
)


@given(st.lists(RULE))
def test_a_list_is_read_as_it_is_written(rules: list[Rule]) -> None:
    """Rules to text and back."""
    assert list(access.parse_list("".join(f"{access.text(rule)}\n" for rule in rules))) == rules
