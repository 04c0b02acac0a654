"""Whole-process times for the benchmarks: medians, and ratios against a peer of the same run."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence


def seconds(
    argv: Sequence[str], *, before: Callable[[], object] = lambda: None, runs: int = 5, **options: object
) -> float:
    """Run `argv` `runs` times, `before` ahead of each, and return the median wall time in seconds."""
    times = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, **options)  # type: ignore[call-overload]
        times.append(time.perf_counter() - start)
        if done.returncode:
            raise SystemExit(f"{argv} failed:\n{done.stderr.decode()[-2000:]}")
    return statistics.median(times)


def interleaved(commands: dict[str, Sequence[str]], runs: int = 15) -> dict[str, float]:
    """Run the commands in turn, `runs` rounds, so that a machine whose speed drifts is fair to all."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, argv in commands.items():
            times[name].append(seconds(argv, runs=1))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(argv: Sequence[str], **options: object) -> int:
    """Run `argv` and return the largest resident size of its processes in bytes."""
    before = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    _, status, usage = os.wait4(before.pid, 0)
    if status:
        raise SystemExit(f"{argv} failed with status {status}")
    return usage.ru_maxrss * 1024


def row(what: str, value: str, limit: str = "", *, ok: bool | None = None) -> None:
    """Print one line of the table; `ok` says whether the goal was reached."""
    mark = "" if ok is None else ("ok" if ok else "MISSED")
    print(f"{what:<58} {value:>18}  {limit:<22} {mark}", flush=True)


def ratio(what: str, ours: float, peer: float, limit: float) -> None:
    """Print our time, the peer's, and their ratio against `limit`."""
    row(what, f"{ours:.3f} / {peer:.3f} s", f"{ours / peer:.2f} x (goal {limit:g})", ok=ours / peer <= limit)
