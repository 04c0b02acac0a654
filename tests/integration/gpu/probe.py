"""Compute on a GPU through NVIDIA's driver alone: python probe.py PROBE.PTX [ROUNDS]

Needs Python and libcuda.so.1, nothing else, so it runs on a bare host as in any container. Prints a line of JSON: how
many GPUs the program sees, the driver's CUDA, and for the first GPU its name, whether a kernel computed what it should,
and the median seconds of ROUNDS launches of one that only computes. Ends with 1 when the result was wrong, with 2 when
CUDA failed.
"""

import ctypes
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

COUNT = 1 << 20
BLOCK = 256
ROUNDS = 20_000


class CudaError(Exception):
    """A function of libcuda that did not return 0."""


class Cuda:
    """libcuda, whose functions raise CudaError."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        self._library = ctypes.CDLL(library)

    def __call__(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            raise CudaError(f"{name}: {(text.value or b'?').decode()} ({code})")


def probe(ptx: bytes, launches: int, library: str = "libcuda.so.1") -> dict[str, Any]:
    """Return what was found."""
    cuda = Cuda(library)
    cuda("cuInit", 0)
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda("cuDriverGetVersion", ctypes.byref(version))
    cuda("cuDeviceGetCount", ctypes.byref(count))
    cuda("cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    cuda("cuDeviceGetName", name, 256, device)
    context, module, data = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
    cuda("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    cuda("cuCtxSetCurrent", context)
    cuda("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(ptx))
    cuda("cuMemAlloc_v2", ctypes.byref(data), ctypes.c_size_t(4 * COUNT))
    try:
        _launch(cuda, module, b"fill", data, COUNT)
        result = (ctypes.c_uint32 * COUNT)()
        cuda("cuMemcpyDtoH_v2", result, data, ctypes.c_size_t(4 * COUNT))
        return {
            "gpus": count.value,
            "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
            "name": name.value.decode(),
            "right": all(value == 3 * i + 7 for i, value in enumerate(result)),
            "seconds": statistics.median(_timed(cuda, module, data) for _ in range(launches)) if launches else 0.0,
        }
    finally:
        cuda("cuMemFree_v2", data)
        cuda("cuDevicePrimaryCtxRelease_v2", device)


def _launch(cuda: Cuda, module: ctypes.c_void_p, name: bytes, data: ctypes.c_uint64, number: int) -> None:
    function, value = ctypes.c_void_p(), ctypes.c_uint32(number)
    cuda("cuModuleGetFunction", ctypes.byref(function), module, name)
    pointers = [ctypes.cast(ctypes.pointer(one), ctypes.c_void_p) for one in (data, value)]
    parameters = (ctypes.c_void_p * 2)(*pointers)
    cuda("cuLaunchKernel", function, COUNT // BLOCK, 1, 1, BLOCK, 1, 1, 0, None, parameters, None)
    cuda("cuCtxSynchronize")


def _timed(cuda: Cuda, module: ctypes.c_void_p, data: ctypes.c_uint64) -> float:
    began = time.perf_counter()
    _launch(cuda, module, b"work", data, ROUNDS)
    return time.perf_counter() - began


def main() -> int:
    """Probe and print."""
    try:
        found = probe(Path(sys.argv[1]).read_bytes() + b"\0", int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    except (CudaError, OSError) as problem:
        print(json.dumps({"problem": str(problem)}))
        return 2
    print(json.dumps(found))
    return 0 if found["right"] else 1


if __name__ == "__main__":
    sys.exit(main())
