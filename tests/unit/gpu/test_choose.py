"""What `--gpus` means on a host."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes.gpu import FakeHost, uuid

from mlbox.errors import ContainerError, UsageError
from mlbox.gpu.choose import Request, candidates, parse_request, pick, units
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import Inventory


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Three NVIDIA GPUs, the last of which is divided, and two of AMD."""
    host = FakeHost(tmp_path / "host")
    host.nvidia(2, 0, 1)
    host.mig(1, (1, 0), (2, 0))
    host.amd(128, 129)
    return read_inventory(host.roots)


def given(inventory: Inventory, text: str, taken: Sequence[str] = ()) -> list[str] | None:
    request = parse_request(text)
    found = pick(candidates(inventory, request), request, taken)
    return None if found is None else [unit.label for unit in found]


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("none", Request()),
        ("", Request()),
        ("all", Request(all=True)),
        ("2", Request(count=2)),
        ("0", Request()),
        ("device=0,2", Request(devices=("0", "2"))),
        ('"device=0,0,1"', Request(devices=("0", "1"))),
        ("device=GPU-1", Request(devices=("GPU-1",))),
    ],
)
def test_words(text: str, request_: Request) -> None:
    """Docker's, with its quotes."""
    assert parse_request(text) == request_
    assert bool(parse_request(text)) == (request_ != Request())


@pytest.mark.parametrize("text", ["some", "device=", "device=0,,1", "-1", "1.5", "devices:0", "99999"])
def test_words_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="not understood"):
        parse_request(text)


def test_a_gpu_without_its_nodes_is_not_given(tmp_path: Path) -> None:
    """Of a number, another one is; by name it is an error."""
    host = FakeHost(tmp_path / "host")
    host.nvidia(0, 1, 2)
    host.mig(2, (1, 0))
    (host.root / "dev/nvidia0").unlink()
    (host.root / "dev/nvidia-caps/nvidia-cap12").unlink()
    inventory = read_inventory(host.roots)
    assert given(inventory, "1") == ["1"]
    for text in ("all", "device=0", "device=2:0"):
        with pytest.raises(ContainerError, match="has no device nodes"):
            given(inventory, text)
    with pytest.raises(ContainerError, match=r"this host has 1 \(1\)"):
        given(inventory, "2")


def test_all_and_counts_are_of_one_maker(inventory: Inventory) -> None:
    """A divided GPU counts by its instances."""
    assert [unit.label for unit in units(inventory)] == ["0", "1", "2:0", "2:1", "amd:0", "amd:1"]
    assert given(inventory, "all") == ["0", "1", "2:0", "2:1"]
    assert given(inventory, "2") == ["0", "1"]
    assert given(inventory, "2", ["nvidia-2"]) == ["1", "2:0"]
    assert given(inventory, "4", ["nvidia-2"]) is None
    assert given(inventory, "all", ["nvidia-0"]) is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("0", "0"),
        (uuid(0), "1"),
        (uuid(0)[:14], "1"),
        ("2:1", "2:1"),
        ("amd:1", "amd:1"),
        ("nvidia:1", "1"),
        ("GPU-0000000000000fa1", "amd:0"),
    ],
)
def test_devices_by_name(inventory: Inventory, name: str, label: str) -> None:
    """The number is that of `gpu ls`, not of the node."""
    assert given(inventory, f"device={name}") == [label]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", r"this host has 4 \(0, 1, 2:0, 2:1\)"),
        ("device=7", r"no such GPU \(there are 0, 1, 2:0"),
        ("device=2", "divided by MIG"),
        ("device=GPU-00", "several GPUs begin with that"),
        ("device=2:5", "no such GPU"),
    ],
)
def test_what_there_is_not(inventory: Inventory, text: str, message: str) -> None:
    """Named, with what there is."""
    with pytest.raises(ContainerError, match=message):
        given(inventory, text)


def test_a_host_without_gpus_says_why(tmp_path: Path) -> None:
    host = FakeHost(tmp_path / "none")
    host.pci(1, "0x10de", "0x030000")
    with pytest.raises(ContainerError, match=r"no GPU(.|\n)*modprobe nvidia"):
        given(read_inventory(host.roots), "1")


def test_a_unit_has_one_id_and_all_its_nodes(inventory: Inventory) -> None:
    """An instance needs its GPU's node too."""
    by_id = {unit.id: unit for unit in units(inventory)}
    assert set(by_id) == {"nvidia-2", "nvidia-0", "nvidia-1-gi1-ci0", "nvidia-1-gi2-ci0", "amd-128", "amd-129"}
    names = [node.path.rpartition("/")[2] for node in by_id["nvidia-1-gi1-ci0"].nodes]
    assert names == ["nvidia1", "nvidia-cap12", "nvidia-cap13"]
