"""Time what GPUs add: reading the device code of a library as large as PyTorch's, and giving a container its GPU.

    python tests/benchmarks/bench_gpu.py

The library is made here: 975 MB, most of it holes, with the 2,900 entries that libtorch_cuda.so of torch 2.9 has.
Needs root, runc and busybox for the second part; its GPUs are device nodes without a driver behind them.
"""

import os
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fakes.containers import boxed, busybox_rootfs
from fakes.fatbin import SECTION, container
from fakes.gpu import FakeHost

from mlbox.engine.granting import HostDevices
from mlbox.gpu.fatbin import device_code
from mlbox.paths import Home
from mlbox.runtime.containers import Containers

ARCHS = [70, 75, 80, 86, 90, 100, 120]
SIZE = 975_000_000


def large_library(path: Path) -> None:
    """Write a library whose containers lie far apart, as those with code in them do."""
    one = container([("sass", arch, "") for arch in ARCHS], size=SIZE // 2900 // 8 * 8)
    count = 2900 // len(ARCHS)
    names = b"\0.nv_fatbin\0.shstrtab\0"
    with path.open("wb") as file:
        start = 64
        for number in range(count):
            file.seek(start + number * len(one))
            file.write(one[:16])
            position = 16
            while position < len(one):
                header, size = struct.unpack_from("<IQ", one, position + 4)
                file.seek(start + number * len(one) + position)
                file.write(one[position : position + header])
                position += header + size
        end = start + count * len(one)
        file.seek(end)
        file.write(names)
        table = end + len(names)
        file.write(bytes(SECTION.size))
        file.write(SECTION.pack(1, 1, 0, 0, start, end - start, 0, 0, 8, 0))
        file.write(SECTION.pack(12, 3, 0, 0, end, len(names), 0, 0, 1, 0))
        file.seek(0)
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        file.write(struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, 0, table, 0, 64, 56, 0, 64, 3, 2))


def best(action: object, times: int = 20) -> float:
    """Return the median seconds of a call."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()  # type: ignore[operator]
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def main() -> None:
    """Print the numbers, goals beside them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "libtorch_cuda.so"
        large_library(path)
        found = device_code(path)
        assert found is not None
        print(
            f"device code of {path.stat().st_size / 1e6:.0f} MB, {found.entries} entries: "
            f"{best(lambda: device_code(path)) * 1000:.0f} ms (goal 300)"
        )
        if os.geteuid() or not shutil.which("runc") or not shutil.which("busybox"):
            return
        host = FakeHost(Path(folder) / "host")
        host.nvidia(*range(8))
        (host.root / "proc/driver/nvidia/params").unlink()
        rootfs = busybox_rootfs(Path(folder) / "root", str(shutil.which("busybox")))
        with boxed(Home(Path(folder) / "home"), rootfs) as box:
            box.containers = Containers(box.home, granter=HostDevices(host.roots, Path(folder) / "leases"))
            box.sh("true", gpus="1")
            # In turn, so that a machine whose speed drifts is fair to both.
            pairs = [(best(lambda: box.sh("true"), 1), best(lambda: box.sh("true", gpus="1"), 1)) for _ in range(20)]
        plain, more = median(one for one, _ in pairs), median(two - one for one, two in pairs)
        print(f"a container {plain * 1000:.0f} ms, with one of eight GPUs {more * 1000:.0f} ms more (goal 30)")


if __name__ == "__main__":
    main()
