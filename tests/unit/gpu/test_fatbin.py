"""Which architectures a library has code for."""

import struct
import time
from pathlib import Path

import pytest
from fakes.elf import shared_library
from fakes.fatbin import container, cuda_library, library
from hypothesis import given
from hypothesis import strategies as st

from mlbox.gpu.fatbin import Code, DeviceCode, device_code
from mlbox.gpu.model import ComputeCapability


def read(tmp_path: Path, data: bytes) -> DeviceCode | None:
    path = tmp_path / "lib.so"
    path.write_bytes(data)
    return device_code(path)


def counted(found: DeviceCode | None) -> dict[str, int]:
    assert found is not None
    return {str(code): count for code, count in found.counts}


def test_every_entry_of_every_container_is_counted(tmp_path: Path) -> None:
    """In both sections, with zeros between."""
    codes = container([("sass", 80, ""), ("sass", 90, "a"), ("ptx", 90, ""), ("sass", 100, "f")])
    data = library((b".nv_fatbin", codes + bytes(24) + codes), (b"__nv_relfatbin", container([("sass", 120, "")])))
    assert counted(read(tmp_path, data)) == {
        "sm_80": 2,
        "sm_90a": 2,
        "compute_90": 2,
        "sm_100f": 2,
        "sm_120": 1,
    }


def test_what_only_claims_to_be_code_ends_soon(tmp_path: Path) -> None:
    """Megabytes of zeros, of headers of nothing, or a section named a thousand times."""
    nothing = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0)
    strange = container([("sass", 80, "")]).replace(struct.pack("<HH", 2, 0x101), struct.pack("<HH", 9, 0x101))
    began = time.process_time()
    assert read(tmp_path, library((b".nv_fatbin", bytes(100 << 20)))) is None
    assert read(tmp_path, library((b".nv_fatbin", nothing * 5_000_000))) is None
    assert read(tmp_path, library((b".nv_fatbin", strange * 500_000))) is None
    data = bytearray(library(*[(b".nv_fatbin", b"")] * 1000, (b".nv_fatbin", container([("sass", 80, "")] * 1000))))
    offset, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    for number in range(1, count - 2):
        data[offset + 64 * number : offset + 64 * number + 64] = data[offset + 64 * (count - 2) :][:64]
    found = read(tmp_path, bytes(data))
    assert found is not None and found.entries < 200_000
    assert time.process_time() - began < 5


def test_a_library_without_device_code_has_none(tmp_path: Path) -> None:
    """Nor has what is no library."""
    for data in (b"", b"text", shared_library("liba.so.1"), library((b".text", container([("sass", 80, "")])))):
        assert read(tmp_path, data) is None


@pytest.mark.parametrize(
    ("code", "runs", "does_not"),
    [
        (Code("sass", 8, 0), ["8.0", "8.6", "8.9"], ["7.5", "9.0"]),
        (Code("sass", 8, 6), ["8.6", "8.9"], ["8.0", "9.0"]),
        (Code("sass", 9, 0, "a"), ["9.0"], ["10.0", "8.9"]),
        (Code("sass", 10, 0, "f"), ["10.0", "10.3"], ["12.0", "9.0"]),
        (Code("ptx", 8, 0), ["8.0", "9.0", "12.0"], ["7.5"]),
        (Code("ptx", 9, 0, "a"), ["9.0"], ["10.0"]),
    ],
)
def test_which_gpu_runs_which_code(code: Code, runs: list[str], does_not: list[str]) -> None:
    """Machine code within its major version, PTX on anything newer."""

    def gpu(text: str) -> ComputeCapability:
        major, minor = map(int, text.split("."))
        return ComputeCapability(major, minor)

    assert all(code.runs_on(gpu(text)) for text in runs)
    assert not any(code.runs_on(gpu(text)) for text in does_not)


def test_code_of_a_few_kernels_does_not_count(tmp_path: Path) -> None:
    """A library for sm_80 with two kernels for sm_90a does not run on the next GPU for them."""
    data = container([("sass", 80, "")]) * 10 + container([("sass", 120, "")]) * 2
    found = read(tmp_path, library((b".nv_fatbin", data)))
    assert found is not None and found.complete == (Code("sass", 8, 0),)
    assert found.runs_on(ComputeCapability(8, 6)) and not found.runs_on(ComputeCapability(12, 0))


@given(st.binary(max_size=64), st.integers(0, 900))
def test_damage_is_no_crash(tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int) -> None:
    """Whatever stands in the file."""
    data = bytearray(cuda_library(("sass", 80, ""), ("ptx", 90, ""), times=3))
    data[place : place + len(noise)] = noise
    path = tmp_path_factory.mktemp("damage") / "lib.so"
    path.write_bytes(data)
    found = device_code(path)
    assert found is None or found.entries < 10_000
