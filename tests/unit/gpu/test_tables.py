"""The reviewed tables: what they say, and what is no table."""

from pathlib import Path

import pytest

from mlbox.errors import MlboxError
from mlbox.gpu.model import ComputeCapability, Version, parse_capability, parse_version
from mlbox.gpu.tables import cuda_table, read_cuda_table


def version(text: str) -> Version:
    found = parse_version(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("535.104.05", "12.2"), ("525.60.13", "12.0"), ("450.80.02", "11.0"), ("580.65.06", "13.0"), ("999.1", "13.3")],
)
def test_the_newest_cuda_of_a_driver(driver: str, cuda: str) -> None:
    assert str(cuda_table().cuda_of(version(driver))) == cuda


def test_drivers_of_a_cuda() -> None:
    """The one it came with, and the oldest that runs it with limits."""
    table = cuda_table()
    assert str(table.driver_for(version("12.4"))) == "550.54.14"
    assert str(table.driver_for(version("12.4.1"))) == "550.54.15"
    assert str(table.floor_for(version("13.2"))) == "580.65.06"
    assert str(table.driver_for(version("12.7"))) == "570.26", "there was none: the next one's"
    assert str(table.driver_for(version("10.2"))) == "450.51.05", "newer drivers run older toolkits"
    assert table.driver_for(version("14.0")) is None
    assert table.cuda_of(version("390.1")) is None
    assert table.floor_for(version("10.2")) is None


def test_newer_toolkits_came_with_newer_drivers() -> None:
    """And no driver is below its family's floor."""
    drivers = [driver for _, driver in cuda_table().drivers]
    assert drivers == sorted(drivers)
    for toolkit, driver in cuda_table().drivers:
        floor = cuda_table().floor_for(toolkit)
        assert floor is not None and (driver >= floor or toolkit.parts[:2] in ((11, 0), (11, 1)))


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cuda.toml"
    path.write_text('[floor]\n12 = "525"\n[driver]\n"12.0" = "new"\n')
    with pytest.raises(MlboxError, match=r"cuda\.toml: not a version: 'new'"):
        read_cuda_table(path)


def test_versions_compare_as_numbers() -> None:
    """And are shown as they were written."""
    assert version("535.104.05") < version("535.104.12") < version("550.1")
    assert str(version(" 535.104.05 ")) == "535.104.05"
    assert str(version("12.4.1").minor) == "12.4"
    assert [parse_version(text) for text in ("", "12.", "a.b", "1.-2", "9" * 12)] == [None] * 5


@pytest.mark.parametrize("text", ["sm_90", "compute_90", "9.0", "90", "SM_90a", "90a"])
def test_architectures(text: str) -> None:
    assert parse_capability(text) == ComputeCapability(9, 0)
    assert str(ComputeCapability(12, 0)) == "sm_120"
    assert [parse_capability(text) for text in ("", "9", "sm_", "x.y", "1234567", "4090", "8.10")] == [None] * 7
