"""Whether GPUs are in MIG mode: the one question that every start asks of NVIDIA's library.

The binding that knows all its questions takes 20 ms to import.
"""

import ctypes
from collections.abc import Iterable

LIBRARY = "libnvidia-ml.so.1"


def in_mig_mode(addresses: Iterable[str], library: str = LIBRARY) -> frozenset[str]:
    """Return those of the PCI addresses whose GPUs are in MIG mode; none when the library does not answer.

    The driver must be loaded: without it, the library makes device nodes.
    """
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return frozenset()
        try:
            return frozenset(one for one in addresses if _is_enabled(nvml, one))
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # it is not there, or older than MIG
        return frozenset()


def _is_enabled(nvml: ctypes.CDLL, address: str) -> bool:
    handle, current, pending = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    if nvml.nvmlDeviceGetHandleByPciBusId_v2(address.encode(), ctypes.byref(handle)) != 0:
        return False
    answer = nvml.nvmlDeviceGetMigMode(handle, ctypes.byref(current), ctypes.byref(pending))
    return answer == 0 and current.value == 1
