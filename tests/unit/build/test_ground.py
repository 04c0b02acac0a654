"""Which libraries the loader finds in a system made of layers."""

from pathlib import Path

import pytest

from mlbox.build.ground import package_of, read_ground
from mlbox.loader import Library, cache_bytes, in_order
from mlbox.oci.layer import Entry, parents, sort_entries
from mlbox.store.tree import Tree

CACHE = cache_bytes(in_order([Library("libcached.so.1", "/opt/c/libcached.so.1")]), "amd64")


def layer(root: Path, files: dict[str, bytes | str], *, gone: tuple[str, ...] = ()) -> tuple[Path, Tree]:
    """Write a layer; text is the target of a symlink."""
    entries = []
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            entries.append(Entry(path, "symlink", 0o777, target=data))
        else:
            (root / path).write_bytes(data)
            entries.append(Entry(path, "file", 0o644, size=len(data)))
    entries += [Entry(path, "whiteout", 0o644) for path in gone]
    entries += [Entry(path, "dir", 0o755) for path in parents(entry.path for entry in entries)]
    return root, Tree(entries=tuple(sort_entries(entries)))


def test_all_the_places_of_a_system(tmp_path: Path) -> None:
    """The cache, the loader's own folders through links, LD_LIBRARY_PATH; what an upper layer removed is gone."""
    low = layer(
        tmp_path / "low",
        {
            "lib": "usr/lib",
            "usr/lib/x86_64-linux-gnu/libz.so.1": "libz.so.1.2",
            "usr/lib/x86_64-linux-gnu/libz.so.1.2": b"zz",
            "usr/lib/libgone.so.1": b"x",
            "usr/lib/libbroken.so": "nothing",
            "usr/local/cuda-12/lib/libcufft.so.11": b"123",
            "usr/local/cuda": "cuda-12",
            "etc/ld.so.cache": CACHE,
        },
    )
    high = layer(tmp_path / "high", {"usr/lib64/libnew.so.2": b"x"}, gone=("usr/lib/libgone.so.1",))

    found = read_ground([low, high], "amd64", "/usr/local/cuda/lib:relative:/nowhere", 36)

    assert {"libz.so.1", "libz.so.1.2", "libnew.so.2", "libcufft.so.11", "libcached.so.1"} <= found.names
    assert "libgone.so.1" not in found.names
    assert found.first == ("usr/local/cuda-12/lib",)
    assert found.files["usr/lib/x86_64-linux-gnu/libz.so.1"] == 2
    assert found.files["usr/local/cuda-12/lib/libcufft.so.11"] == 3
    assert "usr/lib/libbroken.so" not in found.files
    assert found.glibc == 36


@pytest.mark.parametrize("cache", [b"", b"nonsense", CACHE[:-40]])
def test_a_cache_that_is_none(tmp_path: Path, cache: bytes) -> None:
    """Is passed over: the folders are still there."""
    found = read_ground([layer(tmp_path, {"etc/ld.so.cache": cache, "usr/lib/liba.so": b"x"})], "amd64", "", 0)
    assert "liba.so" in found.names


@pytest.mark.parametrize(
    ("library", "suite", "package"),
    [
        ("libGL.so.1", "bookworm", "libgl1"),
        ("libgthread-2.0.so.0", "bookworm", "libglib2.0-0"),
        ("libgthread-2.0.so.0", "trixie", "libglib2.0-0t64"),
        ("libtbb.so.2", "bullseye", "libtbb2"),
        ("libtbb.so.2", "trixie", ""),
        ("libasound.so.2", "jammy", "libasound2"),
        ("libasound.so.2", "noble", "libasound2t64"),
        ("libnobody.so.1", "trixie", ""),
        ("libGL.so.1", "", ""),
    ],
)
def test_whose_library_it_is(library: str, suite: str, package: str) -> None:
    """By release, where names differ; an unknown release has none."""
    assert package_of(library, suite) == package
