from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import LockError, UsageError
from mlbox.lock.accelerators import for_accelerator, merge_packages, nearest
from mlbox.lock.conda.resolve import group_conda
from mlbox.lock.diff import diff_locks, render_diff
from mlbox.lock.file import decode_lock, encode_lock
from mlbox.lock.grouping import BIG, MOST_LAYERS, group_layers
from mlbox.lock.model import Base, CondaPackage, LayerGroup, Lock, Package, Target

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
NAMES = ("cpu", "cu126", "cu130", "rocm7.1")


def package(name: str, version: str = "1", **more: Any) -> Package:
    content = f"{name} {version}".encode().hex()[:64].ljust(64, "0")
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Package(**{"name": name, "version": version, "filename": file, "sha256": content, "size": 1, **more})


def single(accelerator: str, *packages: Package, **more: Any) -> Lock:
    target = msgspec.structs.replace(TARGET, accelerator=accelerator)
    return Lock(**{"inputs": "0" * 64, "target": target, "base": Base(suite="bookworm"), "packages": packages, **more})


def merged(found: Mapping[str, Lock]) -> Lock:
    """Put locks of one accelerator each together, as locking does."""
    packages = merge_packages({name: lock.packages for name, lock in found.items()})
    build = merge_packages({name: lock.build_packages for name, lock in found.items()})
    first = next(iter(found.values()))
    return msgspec.structs.replace(
        first, accelerators=tuple(found), packages=packages, build_packages=build, layers=group_layers(packages)
    )


TORCH = {name: single(name, package("numpy"), package("torch", f"2.9.1+{name}")) for name in NAMES}

names = st.sampled_from(["numpy", "six", "torch", "nvidia-nvtx-cu12", "small-of-some", "small-1-of-1", "triton"])
versions = st.sampled_from(["1", "2", "2+cpu", "2+cu126"])
edges = st.sampled_from([(), ("six",), ("numpy", "six")])
environments = st.dictionaries(names, st.tuples(versions, edges, st.sampled_from([1, BIG - 1, BIG, 3 * BIG]))).map(
    lambda found: tuple(
        package(name, version, requires=requires, size=size)
        for name, (version, requires, size) in sorted(found.items())
    )
)
several = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({name: st.tuples(environments, environments) for name in chosen})
)
locks = several.map(
    lambda found: {name: single(name, *packages, build_packages=build) for name, (packages, build) in found.items()}
)


@given(locks)
def test_a_lock_of_several_holds_the_lock_of_each(found: dict[str, Lock]) -> None:
    """Only the grouping is made for all of them together."""
    whole = merged(found)
    for name, lock in found.items():
        view = for_accelerator(whole, name)
        assert msgspec.structs.replace(view, layers=()) == lock
        assert for_accelerator(view, name) is view
        assert encode_lock(decode_lock(encode_lock(view))) == encode_lock(view)


@given(locks)
def test_the_file_says_the_same(found: dict[str, Lock]) -> None:
    whole = merged(found)
    assert decode_lock(encode_lock(whole)) == whole


@given(locks)
def test_what_all_share_shares_no_layer_with_what_they_do_not(found: dict[str, Lock]) -> None:
    """So a layer of shared packages is one layer for all, and lies below the others."""
    whole = merged(found)
    shared = {package.name for package in whole.packages if not package.accelerators}
    kinds = [{name in shared for name in group.packages} for group in whole.layers]
    assert all(len(kind) == 1 for kind in kinds)
    assert kinds == sorted(kinds, key=lambda kind: True not in kind)


@given(locks, locks)
def test_layers_stay_where_they_are(found: dict[str, Lock], before: dict[str, Lock]) -> None:
    whole, earlier = merged(found), merged(before)
    assert group_layers(whole.packages, whole.layers) == whole.layers
    groups = group_layers(whole.packages, earlier.layers)
    grouped = [name for group in groups for name in group.packages]
    assert sorted(grouped) == sorted({package.name for package in whole.packages})


def test_each_accelerator_may_have_as_many_layers_as_a_lock_alone() -> None:
    found = {name: [package(f"{name[:2]}-{n}", size=BIG + n) for n in range(60)] for name in NAMES}
    found = {name: [*mine, *(package(f"s{n}", size=BIG - 1) for n in range(99))] for name, mine in found.items()}
    packages = merge_packages(found)
    whole = msgspec.structs.replace(single("cpu"), accelerators=NAMES, packages=packages, layers=group_layers(packages))
    for name in NAMES:
        assert 30 < len(for_accelerator(whole, name).layers) <= MOST_LAYERS


def test_packages_without_builds_of_their_own_are_locked_once() -> None:
    whole = merged(TORCH)
    assert [(one.name, one.version, one.accelerators) for one in whole.packages] == [
        ("numpy", "1", ()),
        *(("torch", f"2.9.1+{name}", (name,)) for name in NAMES),
    ]
    assert encode_lock(whole).decode().count('name = "numpy"\nversion') == 1


def test_a_package_that_becomes_shared_moves_to_the_shared_layers() -> None:
    one = merge_packages({"cpu": [package("six")], "cu126": [package("six", "2")]})
    both = merge_packages({"cpu": [package("six")], "cu126": [package("six")]})
    some = (LayerGroup(name="small-of-some", packages=("six",)),)
    bins = (LayerGroup(name="small-1-of-1", packages=("six",)),)
    assert group_layers(one) == group_layers(one, bins) == some
    assert group_layers(both) == group_layers(both, some) == bins


def test_a_lock_of_one_is_written_as_ever() -> None:
    assert "accelerators" not in encode_lock(TORCH["cpu"]).decode()


def test_another_accelerator_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"not for accelerator 'cu118'; it is for cpu, cu126, cu130, rocm7\.1"):
        for_accelerator(merged(TORCH), "cu118")
    with pytest.raises(UsageError, match="not for accelerator 'cu126'; it is for cpu") as raised:
        for_accelerator(TORCH["cpu"], "cu126")
    assert raised.value.hint == "'mlbox lock --accelerator cpu --accelerator cu126' makes one for both"


TWO = merged({name: TORCH[name] for name in ("cpu", "cu126")})


def changed(**changes: Any) -> Lock:
    return msgspec.structs.replace(TWO, **changes)


BAD = {
    "twice": (changed(accelerators=("cpu", "cu126", "cpu")), "in accelerators, 'cpu' stands there twice"),
    "no-name": (changed(accelerators=("cpu", "../cu126")), "accelerator '../cu126' is none"),
    "first": (changed(accelerators=("cu126", "cpu")), "accelerator 'cpu' is not the first"),
    "unknown": (changed(packages=(package("six", accelerators=("cu130",)),), layers=()), "are not some of the lock's"),
    "order": (changed(packages=(package("six", accelerators=("cu126", "cpu")),), layers=()), "in order"),
    "none": (single("cpu", package("six", accelerators=("cpu",))), "'six' .*are not some of the lock's"),
    "both": (
        changed(packages=(package("six"), package("six", "2", accelerators=("cu126",))), layers=()),
        "package 'six' stands there twice for cu126",
    ),
    "build": (
        changed(build_packages=(package("six"), package("six", "2", accelerators=("cpu",)))),
        "build-package 'six' stands there twice for cpu",
    ),
}


@pytest.mark.parametrize(("lock", "words"), BAD.values(), ids=BAD)
def test_damage_is_named(lock: Lock, words: str) -> None:
    with pytest.raises(LockError, match=words):
        decode_lock(encode_lock(lock))


@pytest.mark.parametrize("line", ['accelerators = "cpu"', "accelerators = [1]", "accelerators = { cpu = 1 }"])
def test_a_wrong_type_is_named(line: str) -> None:
    data = encode_lock(TWO).replace(b'accelerators = ["cpu", "cu126"]', line.encode(), 1)
    with pytest.raises(LockError, match="accelerators"):
        decode_lock(data)


def lines(old: Lock, new: Lock) -> list[str]:
    return render_diff(diff_locks(old, new))


def lock_of(**torch: str) -> Lock:
    return merged({name: single(name, package("numpy"), package("torch", version)) for name, version in torch.items()})


def test_a_diff_names_the_accelerators() -> None:
    assert lines(TWO, TWO) == []
    assert lines(lock_of(cpu="1+cpu", cu126="1+cu126"), lock_of(cpu="2+cpu", cu126="1+cu126")) == [
        "~ torch 1+cpu -> 2+cpu [cpu]"
    ]
    assert lines(lock_of(cpu="1", cu126="1"), lock_of(cpu="2", cu126="2")) == ["~ torch 1 -> 2"]
    assert lines(lock_of(cpu="1", cu126="1", cu130="1"), lock_of(cpu="1", cu126="2", cu130="2")) == [
        "~ torch 1 -> 2 [cu126, cu130]",
        "~ layer of torch small-1-of-1 -> small-of-some",
    ]


def test_a_diff_says_of_a_new_accelerator_what_only_it_has() -> None:
    one, two = single("cpu", package("numpy"), package("torch", "1+cpu")), lock_of(cpu="1+cpu", cu126="1+cu126")
    assert lines(one, two) == [
        "~ setting accelerators cpu -> cpu, cu126",
        "+ torch 1+cu126 [cu126]",
    ]
    assert lines(two, one)[-1] == "- torch 1+cu126 [cu126]"
    moved = merged(
        {name: single(name, package("numpy", "2"), package("torch", f"1+{name}")) for name in two.accelerators}
    )
    assert lines(one, moved)[-2:] == ["~ numpy 1 -> 2", "+ torch 1+cu126 [cu126]"]


def test_a_diff_between_two_accelerators_alone_is_one_of_builds() -> None:
    assert lines(TORCH["cpu"], TORCH["cu126"]) == [
        "~ target accelerator cpu -> cu126",
        "~ torch 2.9.1+cpu -> 2.9.1+cu126",
    ]


def test_a_diff_with_nothing_says_whose_each_package_is() -> None:
    assert render_diff(diff_locks(None, TWO)) == [
        "+ numpy 1",
        "+ torch 2.9.1+cpu [cpu]",
        "+ torch 2.9.1+cu126 [cu126]",
    ]


def conda(name: str, build: str = "h0") -> CondaPackage:
    content = f"{name} {build}".encode().hex()[:64].ljust(64, "0")
    file = f"{name}-1.0-{build}.conda"
    return CondaPackage(
        name=name, version="1.0", build=build, subdir="linux-64", filename=file, sha256=content, channel="ours"
    )


CONDA = {"cpu": (conda("python"), conda("torch", "cpu_0")), "cu126": (conda("python"), conda("torch", "cuda_0"))}


def conda_lock() -> Lock:
    """Return a lock of conda packages for two accelerators."""
    packages = merge_packages(CONDA)
    return single("cpu", accelerators=("cpu", "cu126"), conda=packages, conda_layers=group_conda(packages, ()))


def test_conda_packages_of_several_accelerators() -> None:
    """Stand there once where they are the same, in layers that all share; each accelerator gets its own back."""
    lock = decode_lock(encode_lock(conda_lock()))
    assert [(one.name, one.build, one.accelerators) for one in lock.conda] == [
        ("python", "h0", ()),
        ("torch", "cpu_0", ("cpu",)),
        ("torch", "cuda_0", ("cu126",)),
    ]
    assert [one.packages for one in lock.conda_layers] == [("python",), ("torch",)]
    for name, packages in CONDA.items():
        view = for_accelerator(lock, name)
        assert (view.conda, view.target.accelerator) == (packages, name)
        assert decode_lock(encode_lock(view)) == view
    one = nearest(lock, "cu130")
    assert one == for_accelerator(lock, "cpu")
    assert render_diff(diff_locks(lock, msgspec.structs.replace(one, accelerators=("cpu",)))) == [
        "~ setting accelerators cpu, cu126 -> cpu",
        "- conda torch 1.0 [cu126]",
    ]


@pytest.mark.parametrize(
    ("accelerators", "said"),
    [
        ([(), (), ()], "conda-package 'torch' stands there twice for cpu"),
        ([(), ("cpu",), ("cpu", "cu126")], "conda-package 'torch' stands there twice for cpu"),
        ([(), ("cpu",), ("cu999",)], "accelerators are not some of the lock's, in order"),
        ([(), ("cpu",), ("cu126", "cu126")], "accelerators are not some of the lock's, in order"),
    ],
    ids=["all", "overlap", "unknown", "repeated"],
)
def test_damaged_conda_packages(accelerators: list[tuple[str, ...]], said: str) -> None:
    """A lock that says two things of one accelerator is refused."""
    lock = conda_lock()
    damaged = tuple(
        msgspec.structs.replace(one, accelerators=which) for one, which in zip(lock.conda, accelerators, strict=True)
    )
    with pytest.raises(LockError, match=said):
        decode_lock(encode_lock(msgspec.structs.replace(lock, conda=damaged)))
