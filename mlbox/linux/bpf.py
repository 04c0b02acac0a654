"""The device programs of cgroup version 2: assembled from rules, loaded, attached, replaced and read back.

The kernel asks a program of type CGROUP_DEVICE at every open and mknod of a device node in its group
(Documentation/admin-guide/cgroup-v2.rst, "Device controller"). The context it gets is struct bpf_cgroup_dev_ctx of
linux/bpf.h: access << 16 | type, major, minor; 1 allows, 0 denies with EPERM.
"""

import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from mlbox.linux.libc import buffer_of, call

_NUMBER = {"x86_64": 321, "aarch64": 280}
_LOAD, _ATTACH, _DETACH, _BY_ID, _INFO, _QUERY = 5, 8, 9, 13, 15, 16
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 2, 4
_MOST_PROGRAMS = 64
"""The kernel attaches no more to one group (BPF_CGROUP_MAX_PROGS)."""
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_EVERY_ACCESS = 7
_NAME = b"mlbox_devices"


class Rule(NamedTuple):
    """What may be done with some device nodes; None is any number, type 'a' any type."""

    allow: bool
    type: Literal["a", "b", "c"]
    major: int | None
    minor: int | None
    access: str
    """Some of 'r', 'w' and 'm' (mknod)."""


def device_program(rules: Sequence[Rule]) -> bytes:
    """Return the program for `rules`: the last one that speaks of what is wanted counts; when none does, it is denied.

    An allowing rule speaks of a node when all that is wanted is among its access, a denying one when anything is.
    """
    code = [
        _instruction(0x61, 2, 1),  # r2 = type and access
        _instruction(0xBC, 3, 2),
        _instruction(0x54, 2, immediate=0xFFFF),  # r2 = type
        _instruction(0x74, 3, immediate=16),  # r3 = access
        _instruction(0x61, 4, 1, offset=4),  # r4 = major
        _instruction(0x61, 5, 1, offset=8),  # r5 = minor
    ]
    for rule in reversed(rules):
        block = _block(rule)
        code += block
        if len(block) == len(_verdict(rule.allow)):
            return b"".join(code)  # it speaks of everything, and the kernel refuses programs with dead code
    return b"".join((*code, *_verdict(False)))


def _block(rule: Rule) -> list[bytes]:
    """Return the instructions of one rule: each condition that fails jumps behind its verdict."""
    verdict = _verdict(rule.allow)
    tests: list[tuple[bytes, ...]] = []
    if rule.type != "a":
        tests.append((_instruction(0x55, 2, immediate=_TYPES[rule.type]),))
    if (access := sum(_ACCESS[letter] for letter in set(rule.access))) != _EVERY_ACCESS:
        wrong = _instruction(0x5D, 1, 3) if rule.allow else _instruction(0x15, 1)  # != wanted, or == 0
        tests.append((_instruction(0xBC, 1, 3), _instruction(0x54, 1, immediate=access), wrong))
    for register, number in ((4, rule.major), (5, rule.minor)):
        if number is not None:
            tests.append((_instruction(0x55, register, immediate=number),))
    code: list[bytes] = []
    left = sum(map(len, tests)) + len(verdict)
    for test in tests:
        left -= len(test)
        code += (*test[:-1], _jumping(test[-1], left))
    return [*code, *verdict]


def _verdict(allow: bool) -> tuple[bytes, bytes]:
    return _instruction(0xB7, 0, immediate=int(allow)), _instruction(0x95)


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    # Numbers above 2**31 are compared as the kernel holds them, sign-extended from 32 bits.
    return struct.pack("<BBhI", code, source << 4 | target, offset, immediate & 0xFFFFFFFF)


def _jumping(instruction: bytes, offset: int) -> bytes:
    return instruction[:2] + struct.pack("<h", offset) + instruction[4:]


def load(program: bytes) -> int:
    """Load a program and return its descriptor; raises OSError, EPERM without the right to."""
    code, licence = buffer_of(program), buffer_of(b"Apache-2.0\0")
    attributes = struct.pack(
        "<IIQQIIQII16sII",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        code.address,
        licence.address,
        0,
        0,
        0,
        0,
        0,
        _NAME,
        0,
        _CGROUP_DEVICE,
    )
    return _bpf(_LOAD, attributes)[0]


def attach(group: int, program: int, replacing: int | None = None) -> None:
    """Attach the loaded `program` to the group (an open folder), in the place of `replacing` where that is given.

    The change is one step for the kernel: at no moment is nothing or both in force.
    """
    flags = _ALLOW_MULTI | (0 if replacing is None else _REPLACE)
    _bpf(_ATTACH, struct.pack("<IIIII", group, program, _CGROUP_DEVICE, flags, replacing or 0))


def detach(group: int, program: int) -> None:
    """Take `program` off the group."""
    _bpf(_DETACH, struct.pack("<IIIII", group, program, _CGROUP_DEVICE, 0, 0))


def attached(group: int) -> tuple[int, ...]:
    """Return the ids of the programs that are attached to the group itself."""
    ids = buffer_of(bytes(4 * _MOST_PROGRAMS))
    attributes = struct.pack("<IIIIQII", group, _CGROUP_DEVICE, 0, 0, ids.address, _MOST_PROGRAMS, 0)
    _, answer = _bpf(_QUERY, attributes + bytes(32))
    count = struct.unpack_from("<I", answer, 24)[0]
    return struct.unpack_from(f"<{count}I", ids.data)


def opened(program_id: int) -> int:
    """Return a descriptor of the program with that id; raises OSError (ENOENT) when it is gone."""
    return _bpf(_BY_ID, struct.pack("<III", program_id, 0, 0))[0]


def code_of(program: int) -> bytes:
    """Return the instructions of a loaded program as the kernel holds them: for ours, the bytes that were loaded."""
    size = struct.unpack_from("<I", _info(program, bytes(256)), 20)[0]
    code = buffer_of(bytes(size))
    # struct bpf_prog_info: xlated_prog_len at 20, xlated_prog_insns at 32.
    _info(program, struct.pack("<20xI8xQ", size, code.address).ljust(256, b"\0"))
    return bytes(code.data)


def codes(group: int) -> tuple[bytes, ...]:
    """Return the instructions of every program attached to the group; one that goes meanwhile is left out."""
    found = []
    for number in attached(group):
        try:
            program = opened(number)
        except OSError as problem:
            if problem.errno != errno.ENOENT:
                raise
            continue
        try:
            found.append(code_of(program))
        finally:
            os.close(program)
    return tuple(found)


def enforce(group: int, rules: Iterable[Rule]) -> None:
    """Make the program of `rules` the only one that is attached to the group itself."""
    ours = load(device_program(tuple(rules)))
    try:
        old = [opened(number) for number in attached(group)]
        try:
            attach(group, ours, old[0] if old else None)
            for program in old[1:]:
                detach(group, program)
        finally:
            for program in old:
                os.close(program)
    finally:
        os.close(ours)  # the group holds it now


def _info(program: int, record: bytes) -> bytes:
    buffer = buffer_of(record)
    _bpf(_INFO, struct.pack("<IIQ", program, len(record), buffer.address))
    return bytes(buffer.data)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """bpf(2): return its value, and the attributes as the kernel left them."""
    number = _NUMBER.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    buffer = buffer_of(attributes)
    return call("syscall", number, command, buffer.address, len(attributes)), bytes(buffer.data)
