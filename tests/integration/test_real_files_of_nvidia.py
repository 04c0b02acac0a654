"""What NVIDIA ships, read as its own tools and its own loader read it. On request: it is large, and none of it is free.

MLBOX_WHEELS=1              libraries of wheels (100 MB), against cuobjdump of the index that is configured
MLBOX_DRIVER_FILES=FOLDER   a driver's packages, unpacked there (dpkg-deb -x): Debian's of non-free, for one
"""

import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from mlbox.gpu.driver import driver_files, parse_capabilities
from mlbox.gpu.fatbin import device_code
from mlbox.gpu.inventory import LIBRARY_FOLDERS
from mlbox.gpu.model import NAMED_CAPABILITIES, Roots, parse_version

pytestmark = pytest.mark.integration
CUOBJDUMP = "nvidia-cuda-cuobjdump==13.5.37"
_LISTED = re.compile(r"^(?:ELF|PTX) file +\d+: .*\.(?:sm|compute)_(\d+a?)f?\.(cubin|ptx)$", re.MULTILINE)
_NEEDED = re.compile(r"\(NEEDED\).*\[(lib(?:nv|cuda|GLX_|EGL_)[^]]*)\]")
_OF_X = {"libglxserver_nvidia"}
"""What only a display server loads, which runs on the host."""


def wheel(requirement: str, folder: Path) -> Path:
    """Download a wheel for the machine and Python this runs on."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    subprocess.run([*command, requirement], check=True, timeout=500)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def cuobjdump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA's tool."""
    if os.environ.get("MLBOX_WHEELS") != "1":
        pytest.skip("100 MB: MLBOX_WHEELS=1 reads them")
    folder = tmp_path_factory.mktemp("cuobjdump")
    with zipfile.ZipFile(wheel(CUOBJDUMP, folder)) as archive:
        path = Path(archive.extract("nvidia/cu13/bin/cuobjdump", folder))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "requirement",
    ["torchvision==0.24.1", "nvidia-nvjpeg-cu12==12.4.0.76", "nvidia-nvjpeg==13.3.2.43", "cupy-cuda13x==14.2.0"],
)
def test_device_code_is_what_cuobjdump_lists(cuobjdump: Path, requirement: str, tmp_path: Path) -> None:
    """Every entry of every library. It does not say of machine code that it is for a family, 'f'."""
    compared = 0
    with zipfile.ZipFile(wheel(requirement, tmp_path)) as archive:
        for name in archive.namelist():
            if not re.search(r"\.so[.0-9]*$", name):
                continue
            path = Path(archive.extract(name, tmp_path))
            if (found := device_code(path)) is None:
                continue
            command = [str(cuobjdump), "-all", "-lelf", "-lptx", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            theirs = Counter(
                {"cubin": "sm_", "ptx": "compute_"}[kind] + arch for arch, kind in _LISTED.findall(done.stdout)
            )
            ours: Counter[str] = Counter()
            for code, count in found.counts:
                ours[str(code).removesuffix("f")] += count
            assert ours == theirs, name
            compared += 1
    assert compared


def test_a_drivers_libraries_find_one_another() -> None:
    """What one capability gives needs nothing of the driver beyond it; all of them give everything."""
    if not (folder := os.environ.get("MLBOX_DRIVER_FILES")):
        pytest.skip("MLBOX_DRIVER_FILES names no folder with a driver's files")
    there = [path for part in LIBRARY_FOLDERS for path in Path(folder, part).glob("lib*.so.*.*")]
    version = parse_version(next(path for path in there if path.name.startswith("libcuda.so.")).name[11:])
    assert version is not None
    of_driver = {path.name for path in there if path.name.endswith(f".so.{version}")}
    given = set()
    for capability in NAMED_CAPABILITIES:
        found = driver_files(version, parse_capabilities(capability), "amd64", Roots(driver=folder))
        names = {name for one in found.libraries for name in one.names}
        for one in found.libraries:
            shown = subprocess.run(["readelf", "-d", one.path], capture_output=True, text=True, check=True, timeout=60)
            assert set(_NEEDED.findall(shown.stdout)) <= names, f"{capability}: {one.path}"
        given |= names
    assert {name for name in of_driver - given if name.partition(".so")[0] not in _OF_X} == set()
