"""mlbox gpu top: how busy the GPUs are, and for whom."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mlbox.cli.render import Format, mega

if TYPE_CHECKING:
    from mlbox.engine.watching import Sample, Tenant
    from mlbox.gpu.nvml import Use


def top(look: "Callable[[], Sample]", interval: float, *, once: bool, form: Format) -> None:
    """Print what `look` sees, every `interval` seconds until somebody interrupts; on a terminal in place."""
    first = look()
    for problem in first.problems:
        print(f"problem: {problem}", file=sys.stderr)
    try:
        if form is Format.JSON:
            _repeat(first, look, interval, once, lambda one: print(_json(one), flush=True))
        elif once or not sys.stdout.isatty():
            _repeat(first, look, interval, once, lambda one: print(text(one), flush=True))
        else:
            _live(first, look, interval)
    except KeyboardInterrupt:
        return


def _repeat(
    sample: "Sample", look: "Callable[[], Sample]", interval: float, once: bool, show: "Callable[[Sample], None]"
) -> None:
    show(sample)
    while not once:
        time.sleep(interval)
        show(look())


def _live(first: "Sample", look: "Callable[[], Sample]", interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text(text(first)), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            live.update(Text(text(look())), refresh=True)


def _json(sample: "Sample") -> str:
    return msgspec.json.encode({"time": time.time(), **msgspec.structs.asdict(sample)}).decode()


def text(sample: "Sample") -> str:
    """Return a look as tables; names of programs and containers can do no harm to a terminal."""
    driver = f", driver {sample.driver.version}" if sample.driver else ""
    head = f"{time.strftime('%H:%M:%S')}  {len(sample.gpus)} GPUs{driver}"
    gpus = [(str(place), state.gpu.name, *_use(state.use, state.gpu.memory)) for place, state in enumerate(sample.gpus)]
    tables = [_table(("GPU", "NAME", "BUSY", "MEMORY", "POWER", "TEMPERATURE"), gpus)]
    if sample.tenants:
        rows = [_tenant(one) for one in sample.tenants]
        tables.append(_table(("CONTAINER", "USER", "GPUS", "MEMORY", "ENERGY", "PROGRAMS"), rows))
    return "\n\n".join((head, *tables)) + "\n"


def _use(use: "Use | None", memory: int) -> tuple[str, str, str, str]:
    size = mega(memory) if memory else "-"
    if use is None:
        return "-", size, "-", "-"
    return (
        "-" if use.busy is None else f"{use.busy}%",
        size if use.memory_used is None else f"{mega(use.memory_used)} / {size}",
        "-" if use.power is None else f"{use.power:.0f} W",
        "-" if use.temperature is None else f"{use.temperature} °C",
    )


def _tenant(one: "Tenant") -> tuple[str, ...]:
    return (
        one.container or "-",
        one.user or "-",
        ",".join(map(str, one.gpus)),
        mega(one.memory) if one.memory else "-",
        "-" if one.energy is None else f"{one.energy / 3600:.1f} Wh",
        ", ".join(one.processes) or "idle",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from mlbox.gpu.failures import printable

    shown = [head, *(tuple(printable(cell, 120) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown)
    return "\n".join(lines)
