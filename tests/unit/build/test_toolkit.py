"""A CUDA toolkit made of wheels."""

from pathlib import Path

from mlbox.build.toolkit import make_toolkit


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_the_parts_of_all_wheels_in_one_folder(tmp_path: Path) -> None:
    """As build systems expect it: CUDA_HOME/lib64, and names that a linker finds."""
    site = tmp_path / "site"
    put(site, "nvidia/cu13/bin/nvcc", "nvidia/cu13/include/cuda.h", "nvidia/cu13/lib/libcudart.so.13")
    put(site, "nvidia/cu13/nvvm/bin/cicc", "nvidia/cu13/lib/libcudart_static.a", "nvidia/cu13/other/x")
    put(site, "nvidia/cudnn/include/cudnn.h", "nvidia/cudnn/include/cuda.h", "nvidia/cudnn/lib/libcudnn.so.9")
    (site / "nvidia/cudnn/include/escape.h").symlink_to("/etc/passwd")
    (site / "nvidia/cudnn/lib/more").symlink_to("/etc")

    home = tmp_path / "cuda"
    assert make_toolkit(site, home)

    assert (home / "include/cuda.h").read_text() == "nvidia/cu13/include/cuda.h"
    assert (home / "include/cudnn.h").samefile(site / "nvidia/cudnn/include/cudnn.h")
    assert (home / "lib64/libcudart.so").resolve() == home / "lib/libcudart.so.13"
    assert (home / "lib/libcudnn.so").exists()
    assert (home / "nvvm/bin/cicc").exists()
    assert not (home / "include/escape.h").is_symlink()
    assert not (home / "lib/more").is_symlink()
    assert not (home / "other").exists()


def test_libraries_without_a_compiler_make_none(tmp_path: Path) -> None:
    put(tmp_path, "nvidia/cuda_nvcc/bin/ptxas")
    assert not make_toolkit(tmp_path, tmp_path / "cuda")
    assert not make_toolkit(tmp_path / "nothing", tmp_path / "cuda")
    assert not (tmp_path / "cuda").exists()
