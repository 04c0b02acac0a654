"""What the kernel lets a container do with device nodes: read back, compared with its spec, put right again.

Others change these rules behind our back: systemd applies its own list to the groups it manages whenever it is
reloaded, and a container then finds its GPU gone (NVIDIA/nvidia-container-toolkit issue 48).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal

from mlbox.linux import bpf
from mlbox.linux.bpf import Rule
from mlbox.linux.cgroup import Hierarchy
from mlbox.oci.runtime import Spec

_NOTHING = Rule(False, "a", None, None, "rwm")
# What runc adds to every container's rules, whatever they are: nodes of any kind may be made (which opens none of
# them, and takes a capability that containers do not have), and the tunnel device, which has no node.
_BY_THE_RUNTIME = (
    Rule(True, "c", None, None, "m"),
    Rule(True, "b", None, None, "m"),
    Rule(True, "c", 10, 200, "rwm"),
)


def rules_of(spec: Spec) -> tuple[Rule, ...]:
    """Return what a container of `spec` may do with device nodes, and nothing else may it."""
    resources = spec.linux.resources if spec.linux else None
    return tuple(
        Rule(True, "b" if rule.type == "b" else "c", rule.major, rule.minor, rule.access or "rwm")
        for rule in (resources.devices if resources else ())
        if rule.allow
    )


def problems(group: str, rules: Sequence[Rule], mounted: Iterable[Hierarchy]) -> tuple[str, ...]:
    """Return what differs between `rules` and what the kernel has for `group` ('/mlbox/ID'), for people.

    Raises OSError when the kernel cannot be asked (root may).
    """
    first = _v1(mounted)
    if first is None:
        return _program_problems(group, _program(rules), mounted)
    lost, extra = _differences(_read_list(first + group), (*rules, *_BY_THE_RUNTIME))
    found = [f"{text(rule)} is denied, and should be allowed" for rule in lost]
    found += [f"{text(rule)} is allowed, and should not be" for rule in extra]
    return (*found, *_program_problems(group, None, mounted))


def enforce(group: str, rules: Sequence[Rule], mounted: Iterable[Hierarchy]) -> None:
    """Make `rules` what the kernel has for `group`; raises OSError when it refuses."""
    first = _v1(mounted)
    if first is None:
        _with_group(group, mounted, lambda folder: bpf.enforce(folder, _program(rules)))
        return
    wanted = (*rules, *_BY_THE_RUNTIME)
    lost, extra = _differences(_read_list(first + group), wanted)
    if any(rule.type == "a" for rule in extra):
        _write(f"{first}{group}/devices.deny", "a")
        lost, extra = list(wanted), []
    for rule in extra:
        _write(f"{first}{group}/devices.deny", text(rule))
    if extra:  # a wildcard may have been what granted one of ours
        lost, _ = _differences(_read_list(first + group), wanted)
    for rule in lost:
        _write(f"{first}{group}/devices.allow", text(rule))
    _with_group(group, mounted, _detach_all)


def is_by_program(mounted: Iterable[Hierarchy]) -> bool:
    """Whether a program decides here, as version 2 has it, and not version 1's list."""
    return _v1(mounted) is None


def text(rule: Rule) -> str:
    """Return the rule as version 1 writes it: 'c 195:0 rwm'."""
    major, minor = ("*" if number is None else number for number in (rule.major, rule.minor))
    return f"{rule.type} {major}:{minor} {rule.access}"


def parse_list(listed: str) -> tuple[Rule, ...]:
    """Return the rules in a devices.list."""
    found = []
    for line in listed.splitlines():
        kind, numbers, access = line.split()
        major, _, minor = numbers.partition(":")
        found.append(Rule(True, _KINDS[kind], _number(major), _number(minor), access))
    return tuple(found)


_KINDS: dict[str, Literal["a", "b", "c"]] = {"a": "a", "b": "b", "c": "c"}


def _number(digits: str) -> int | None:
    return None if digits == "*" else int(digits)


def _program(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return (_NOTHING, *_BY_THE_RUNTIME, *rules)


def _differences(found: Sequence[Rule], wanted: Sequence[Rule]) -> tuple[list[Rule], list[Rule]]:
    """Return what is wanted and not found, and what is found and not wanted."""
    return list(_beyond(wanted, found)), list(_beyond(found, wanted))


def _beyond(rules: Iterable[Rule], others: Sequence[Rule]) -> Iterable[Rule]:
    """Yield what of `rules` none of `others` grants."""
    for rule in rules:
        granted = {letter for other in others if _covers(other, rule) for letter in other.access}
        if missing := "".join(letter for letter in "rwm" if letter in rule.access and letter not in granted):
            yield rule._replace(access=missing)


def _covers(wide: Rule, narrow: Rule) -> bool:
    return wide.type in ("a", narrow.type) and wide.major in (None, narrow.major) and wide.minor in (None, narrow.minor)


def _program_problems(group: str, rules: Sequence[Rule] | None, mounted: Iterable[Hierarchy]) -> tuple[str, ...]:
    expected = () if rules is None else (bpf.device_program(rules),)
    codes: list[bytes] = []
    _with_group(group, mounted, lambda folder: codes.extend(bpf.codes(folder)))
    if tuple(codes) == expected:
        return ()
    if not codes:
        return ("no program filters devices: every device of the host can be opened",)
    strangers = sum(code not in expected for code in codes)
    return (f"{strangers} device program(s) of somebody else are attached to its group",)


def _with_group(group: str, mounted: Iterable[Hierarchy], action: Callable[[int], None]) -> None:
    for one in mounted:
        if one.version == 2:
            with suppress(FileNotFoundError):
                folder = os.open(one.path + group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    action(folder)
                finally:
                    os.close(folder)


def _detach_all(folder: int) -> None:
    for number in bpf.attached(folder):
        program = bpf.opened(number)
        try:
            bpf.detach(folder, program)
        finally:
            os.close(program)


def _v1(mounted: Iterable[Hierarchy]) -> str | None:
    return next((one.path for one in mounted if "devices" in one.controllers), None)


def _read_list(folder: str) -> tuple[Rule, ...]:
    with open(f"{folder}/devices.list", encoding="ascii") as file:  # noqa: PTH123 - paths are text here
        return parse_list(file.read())


def _write(path: str, line: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(line)
