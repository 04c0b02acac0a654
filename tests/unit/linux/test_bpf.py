"""Device programs: what they say, read by an interpreter, against a plain reading of the rules."""

from collections.abc import Sequence

import pytest
from fakes.bpf import run
from hypothesis import given
from hypothesis import strategies as st

from mlbox.linux.bpf import Rule, device_program

NUMBERS = st.sampled_from([0, 1, 3, 10, 195, 255, 2**20 - 1])
ANY = st.none() | NUMBERS
ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
RULES = st.lists(st.builds(Rule, st.booleans(), st.sampled_from(["a", "b", "c"]), ANY, ANY, ACCESS), max_size=12)


def allowed(rules: Sequence[Rule], kind: str, major: int, minor: int, access: str) -> int:
    """Read the rules one after the other: the last that speaks of it counts."""
    answer = False
    for rule in rules:
        fits = rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
        speaks = set(access) <= set(rule.access) if rule.allow else set(access) & set(rule.access)
        if fits and speaks:
            answer = rule.allow
    return int(answer)


@given(RULES, st.sampled_from(["b", "c"]), NUMBERS, NUMBERS, ACCESS)
def test_a_program_says_what_its_rules_say(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> None:
    """For every node and access."""
    assert run(device_program(rules), kind, major, minor, access) == allowed(rules, kind, major, minor, access)


def test_no_rules_deny_everything() -> None:
    """An empty program would be refused by the kernel."""
    assert run(device_program(()), "c", 1, 3, "r") == 0


@pytest.mark.parametrize("minor", [0, 1, 2, 255])
def test_exactly_the_minors_that_are_listed(minor: int) -> None:
    """Two GPUs of four and the control node."""
    rules = [Rule(False, "a", None, None, "rwm"), *(Rule(True, "c", 195, one, "rw") for one in (0, 2, 255))]
    assert run(device_program(rules), "c", 195, minor, "rw") == (minor in (0, 2, 255))
    assert run(device_program(rules), "c", 195, minor, "m") == 0
    assert run(device_program(rules), "b", 195, minor, "rw") == 0


@given(RULES)
def test_a_program_is_short_and_has_no_dead_code(rules: list[Rule]) -> None:
    """What can never be reached is refused by the kernel: nothing follows a rule that speaks of everything."""
    program = device_program(rules)
    assert len(program) <= 8 * (6 + 10 * len(rules) + 2)
    reached, waiting = set[int](), [0]
    while waiting:
        position = waiting.pop()
        if position in reached:
            continue
        reached.add(position)
        code = program[position * 8]
        offset = int.from_bytes(program[position * 8 + 2 : position * 8 + 4], "little", signed=True)
        if code in (0x15, 0x55, 0x5D):
            waiting.append(position + 1 + offset)
        if code != 0x95:
            waiting.append(position + 1)
    assert reached == set(range(len(program) // 8))
