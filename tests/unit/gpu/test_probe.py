"""The probe that people run on their GPUs, against a libcuda of our own that computes on the processor."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
LIBRARY = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Ours", size); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = context; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuModuleLoadData(void **module, const char *ptx) { *module = module; return strstr(ptx, ".entry fill") ? 0 : 218; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = (void *)(intptr_t)name[0];
    return 0;
}
int cuMemAlloc_v2(uint64_t *data, size_t size) { *data = (uint64_t)(uintptr_t)malloc(size); return 0; }
int cuMemFree_v2(uint64_t data) { free((void *)(uintptr_t)data); return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { memcpy(to, (void *)(uintptr_t)from, size); return 0; }
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    uint32_t *data = (uint32_t *)(uintptr_t)*(uint64_t *)parameters[0], count = *(uint32_t *)parameters[1];
    if ((intptr_t)function == 'f')
        for (uint32_t i = 0; i < count && i < x * bx; i++) data[i] = FACTOR * i + 7;
    return 0;
}
"""


@pytest.fixture
def probe() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("probe", ROOT / "tests/integration/gpu/probe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library(folder: Path, *, init: int = 0, factor: int = 3) -> str:
    """Build a libcuda."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed")
    source, built = folder / "cuda.c", folder / "libcuda.so.1"
    source.write_text(LIBRARY)
    argv = [compiler, "-shared", "-fPIC", "-w", f"-DINIT={init}", f"-DFACTOR={factor}", "-o", str(built), str(source)]
    subprocess.run(argv, check=True)
    return str(built)


PTX = (ROOT / "gpu/probe/probe.ptx").read_bytes() + b"\0"


def test_a_right_result(probe: ModuleType, tmp_path: Path) -> None:
    found = probe.probe(PTX, 2, library(tmp_path))
    assert found.pop("seconds") >= 0
    assert found == {"gpus": 1, "cuda": "12.4", "name": "Ours", "right": True}


def test_a_wrong_result_is_noticed(probe: ModuleType, tmp_path: Path) -> None:
    assert probe.probe(PTX, 0, library(tmp_path, factor=5))["right"] is False


def test_what_cuda_says_is_passed_on(probe: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(probe.CudaError, match=r"cuInit: CUDA_ERROR_NO_DEVICE \(100\)"):
        probe.probe(PTX, 0, library(tmp_path, init=100))
