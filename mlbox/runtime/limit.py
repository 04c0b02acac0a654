"""How long one container may run: it is asked to stop when its time is over, and made to after its grace."""

import signal
import time


class Limit:
    """Counts from when it is made; restarts of the program do not begin it anew.

    Seconds that the machine sleeps do not count.
    """

    def __init__(self, seconds: float, stop_signal: int, grace: float) -> None:
        self.seconds = seconds
        self.over = False
        """Whether the time was over while the program still ran."""
        self._due = time.monotonic() + seconds
        self._signals = [(stop_signal, grace), (int(signal.SIGKILL), 0.0)]

    def patience(self) -> float | None:
        """Return the seconds until `look` has something to say; None when it has said everything."""
        return max(0.0, self._due - time.monotonic()) if self._signals else None

    def look(self) -> int | None:
        """Return the signal that the program is to get now, None when it is not time."""
        if self.patience() != 0.0:
            return None
        self.over = True
        number, grace = self._signals.pop(0)
        self._due = time.monotonic() + grace
        return number


def soonest(*times: float | None) -> float | None:
    """Return the shortest of some waits, of which None is for ever."""
    return min((one for one in times if one is not None), default=None)
