"""What an image needs of a GPU host, and whether it is started where it does not fit."""

import os
from pathlib import Path

import msgspec
import pytest
from fakes.elf import shared_library
from fakes.fatbin import cuda_library
from fakes.gpu import FakeHost
from fakes.trees import make_image, make_layer

from mlbox.engine import checking
from mlbox.engine.checking import check, needs_of, refuse_unfit
from mlbox.errors import ContainerError, UsageError
from mlbox.gpu.choose import Request, candidates
from mlbox.gpu.compat import Compat
from mlbox.gpu.inventory import read_inventory
from mlbox.oci.artifact import GPU_TYPE, LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.digest import Digest
from mlbox.oci.layer import Entry
from mlbox.paths import Home
from mlbox.store.store import Store

SITE = "opt/mlbox/env/lib/python3.11/site-packages"
CUDA = {
    f"{SITE}/torch/lib/libtorch_cuda.so": cuda_library(("sass", 80, ""), ("sass", 90, ""), times=20),
    f"{SITE}/nvidia_cuda_runtime_cu12-12.8.90.dist-info/METADATA": b"Name: nvidia-cuda-runtime-cu12\n",
    f"{SITE}/torch/plain.so.1": b"\x7fELF\x02\x01" + bytes(2000),
}


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


@pytest.fixture
def image(store: Store) -> Digest:
    """An image of torch for A100 and H100, without a lock."""
    return make_image(store, make_layer(store, "env", CUDA)).digest


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """An H200 with a driver that came with CUDA 12.8."""
    made = FakeHost(tmp_path / "host")
    made.nvidia(0, version="570.124.06")
    return made


def test_needs_are_read_from_packages_and_libraries(store: Store, image: Digest) -> None:
    """A library that a later layer replaces counts as the later one."""
    needs = needs_of(store, image)
    assert (needs.cuda, needs.because) == ("12.8", "nvidia-cuda-runtime-cu12 12.8.90")
    assert [library.name for library in needs.libraries] == ["libtorch_cuda.so"]
    newer = make_layer(store, "newer", {f"{SITE}/torch/lib/libtorch_cuda.so": cuda_library(("sass", 120, ""), times=9)})
    both = make_image(store, make_layer(store, "env", CUDA), newer).digest
    assert [str(code) for code in needs_of(store, both).libraries[0].code.complete] == ["sm_120"]


def test_what_a_later_layer_removes_is_not_needed(store: Store) -> None:
    """Neither the library nor the package; a name that is no text is no harm."""
    folder = f"{SITE}/nvidia_cuda_runtime_cu12-12.8.90.dist-info"
    odd = os.fsdecode(b"opt/lib\xff.so")
    gone = [Entry(f"{SITE}/torch", "whiteout", 0), Entry(folder, "whiteout", 0)]
    above = make_layer(store, "above", {odd: cuda_library(("sass", 80, ""), times=20)})
    entries = {above.diff_id: [*store.layers.entries(above.diff_id), *gone]}
    image = make_image(store, make_layer(store, "env", CUDA), above)
    known = store.layers.entries
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.layers, "entries", lambda diff_id: entries.get(diff_id) or known(diff_id))
        needs = needs_of(store, image.digest)
    assert (needs.cuda, [library.path for library in needs.libraries]) == ("", ["opt/lib?.so"])


def test_a_lock_that_cannot_be_read_is_passed_over(store: Store, image: Digest) -> None:
    """It is somebody else's, or of a newer mlbox; the image still says what is in it."""
    subject = subject_of(image, store.images.load(image).manifest_bytes)
    store.referrers.add(artifact_of(LOCK_TYPE, b"version = 99"), subject)
    assert needs_of(store, image).cuda == "12.8"


def test_the_libraries_of_a_newer_driver_are_found(store: Store) -> None:
    """Behind the link that CUDA's images have."""
    files = {
        "usr/local/cuda": "/usr/local/cuda-12.9",
        "usr/local/cuda-12.9/compat/libcuda.so.1": "libcuda.so.575.57.08",
        "usr/local/cuda-12.9/compat/libcuda.so.575.57.08": shared_library("libcuda.so.1"),
    }
    assert needs_of(store, make_image(store, make_layer(store, "cuda", files)).digest).compat == Compat(
        version="575.57.08"
    )


def test_needs_are_kept_beside_the_image(store: Store, image: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is read; what another version kept is not believed."""
    first = needs_of(store, image)
    monkeypatch.setattr(checking, "read_needs", None)
    assert needs_of(store, image) == first
    assert len(store.referrers.of(image, GPU_TYPE)) == 1
    monkeypatch.undo()
    monkeypatch.setattr(checking, "_FORMAT", 99)
    assert needs_of(store, image) == first
    assert len(store.referrers.of(image, GPU_TYPE)) == 2


def test_facts_for_people(store: Store, image: Digest) -> None:
    """Drivers beside the CUDA, architectures by name; nothing of an image without."""
    facts = checking.facts_of(store, image)
    assert facts is not None
    assert (facts.cuda, facts.driver, facts.oldest_driver) == ("12.8", "570.26", "525.60.13")
    assert [(one.path, one.architectures, one.entries) for one in facts.libraries] == [
        (f"{SITE}/torch/lib/libtorch_cuda.so", ("sm_80", "sm_90"), 40)
    ]
    assert checking.facts_of(store, make_image(store, label="plain").digest) is None


def test_a_cuda_image_without_packages_says_it_in_its_environment(store: Store) -> None:
    image = make_image(store)
    config = msgspec.structs.replace(image.config.config, env=("CUDA_VERSION=12.6.3",))
    found = checking.read_needs(
        store, msgspec.structs.replace(image, config=msgspec.structs.replace(image.config, config=config))
    )
    assert found.cuda == "12.6"


def test_this_hosts_gpus_are_checked_unless_others_are_named(store: Store, image: Digest, host: FakeHost) -> None:
    needs = needs_of(store, image)
    (here,) = check(needs, roots=host.roots)
    assert (here.gpu, here.driver, here.fit.verdict) == ("0: NVIDIA H200 (sm_90)", "570.124.06", "fits")
    (there,) = check(needs, gpu="RTX 5090", roots=host.roots)
    assert there.fit.verdict == "refused" and "no code for sm_120" in there.fit.reasons[0]
    (old,) = check(needs, driver="470.57.02", roots=host.roots)
    assert old.fit.verdict == "refused" and "525.60.13" in old.fit.reasons[0]
    with pytest.raises(UsageError, match="Voodoo"):
        check(needs, gpu="Voodoo", roots=host.roots)
    with pytest.raises(UsageError, match="not a version"):
        check(needs, driver="new", roots=host.roots)


def test_an_image_that_does_not_fit_is_refused(store: Store, image: Digest, host: FakeHost) -> None:
    """With the reason, and how to start it all the same; one without CUDA runs anywhere."""
    refuse_unfit(store, image, Request(all=True), host.roots)
    other = make_image(
        store, make_layer(store, "blackwell", {f"{SITE}/libx.so": cuda_library(("sass", 120, ""), times=20)})
    ).digest
    with pytest.raises(ContainerError, match="does not fit GPU 0") as caught:
        refuse_unfit(store, other, Request(count=1), host.roots)
    assert "--no-check" in (caught.value.hint or "")
    refuse_unfit(store, make_image(store, label="plain").digest, Request(all=True), host.roots)


def test_of_different_gpus_those_that_fit(store: Store, image: Digest, host: FakeHost) -> None:
    """They are counted; the others are named with the reason."""
    mixed = FakeHost(host.root / "mixed")
    mixed.nvidia(0, 1, 2, version="570.124.06")
    for number, name in ((1, "Tesla V100"), (2, "GeForce RTX 5090")):
        information = mixed.root / f"proc/driver/nvidia/gpus/0000:{number + 1:02x}:00.0/information"
        information.write_text(information.read_text().replace("NVIDIA H200", f"NVIDIA {name}"))
    inventory = read_inventory(mixed.roots)

    def fit(count: int) -> checking.Fitting:
        request = Request(count=count)
        return checking.fitting(store, image, request, inventory, candidates(inventory, request))

    assert [unit.label for unit in fit(1).units] == ["0"]
    assert [line.partition(":")[0] for line in fit(1).left_out] == [
        "GPU 1 (NVIDIA Tesla V100)",
        "GPU 2 (NVIDIA GeForce RTX 5090)",
    ]
    with pytest.raises(ContainerError, match=r"--gpus 2: of 3 GPUs the image fits 1, and not 1, 2; .* sm_70"):
        fit(2)
    with pytest.raises(ContainerError, match="does not fit GPU 1"):
        refuse_unfit(store, image, Request(all=True), mixed.roots)
    refuse_unfit(store, image, Request(devices=("0",)), mixed.roots)
