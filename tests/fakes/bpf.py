"""A small interpreter of device programs, so that their meaning is tested without a kernel."""

import struct

TYPES = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    """Return what `program` says to `access` of a node; raises AssertionError for what the kernel would refuse."""
    wanted = sum(ACCESS[letter] for letter in access)
    context = struct.pack("<III", wanted << 16 | TYPES[kind], major, minor)
    registers: dict[int, int] = {}
    position, steps = 0, len(program) // 8
    while True:
        assert 0 <= position < len(program) // 8, "it leaves the program"
        assert steps, "it never ends"
        steps -= 1
        code, places, offset, immediate = struct.unpack_from("<BBhi", program, position * 8)
        target, source = places & 15, places >> 4
        position += 1
        match code:
            case 0x61:  # 32 bits of the context
                assert source == 1 and 1 not in registers, "the context is gone"
                registers[target] = struct.unpack_from("<I", context, offset)[0]
            case 0x54:
                registers[target] &= immediate & 0xFFFFFFFF
            case 0x74:
                registers[target] = (registers[target] & 0xFFFFFFFF) >> immediate
            case 0xBC:
                registers[target] = registers[source] & 0xFFFFFFFF
            case 0xB7:
                registers[target] = immediate & 0xFFFFFFFFFFFFFFFF
            case 0x15:
                position += offset if registers[target] == immediate & 0xFFFFFFFFFFFFFFFF else 0
            case 0x55:
                position += offset if registers[target] != immediate & 0xFFFFFFFFFFFFFFFF else 0
            case 0x5D:
                position += offset if registers[target] != registers[source] else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"an instruction that is not expected: {code:#x}")
