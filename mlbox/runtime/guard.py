"""Keeps the device rules of one container what its spec says, for as long as it runs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlbox.errors import ContainerError
from mlbox.linux import lock
from mlbox.linux.cgroup import Hierarchy
from mlbox.runtime import access
from mlbox.runtime.record import Folder

EVERY = 5.0
"""Seconds between two looks; a look takes less than a millisecond."""


class Guard:
    """The device rules of the container in `folder`, read anew at each look: devices come and go while it runs."""

    def __init__(self, folder: Folder, mounted: tuple[Hierarchy, ...]) -> None:
        self._folder = folder
        self._mounted = mounted
        self._next = time.monotonic() + EVERY

    def begin(self) -> str:
        """Put a program of our own, which can be compared byte by byte, in the place of the runtime's.

        Return what went wrong, '' when nothing did.
        """
        if not access.is_by_program(self._mounted):
            return ""
        try:
            access.enforce(self._folder.cgroup, access.rules_of(self._folder.load_spec()), self._mounted)
        except OSError as problem:
            return f"its device rules are the runtime's and are not watched: {problem.strerror}"
        return ""

    def patience(self) -> float:
        """Return the seconds until the next look."""
        return max(0.0, self._next - time.monotonic())

    def look(self) -> str:
        """Look when it is time; put right what is wrong and return what it was, '' when nothing was."""
        if self.patience():
            return ""
        self._next = time.monotonic() + EVERY
        with changing(self._folder, wait=False) as alone:
            return self._put_right() if alone else ""  # somebody is changing them on purpose

    def _put_right(self) -> str:
        try:
            rules = access.rules_of(self._folder.load_spec())
            found = access.problems(self._folder.cgroup, rules, self._mounted)
            if not found:
                return ""
            access.enforce(self._folder.cgroup, rules, self._mounted)
        except FileNotFoundError:
            return ""  # the group is gone: the container is ending
        except (OSError, ContainerError) as problem:
            return f"its device rules could not be looked at: {problem}"
        return f"its device rules were changed by somebody else and are right again: {'; '.join(found)}"


@contextmanager
def changing(folder: Folder, *, wait: bool = True) -> Iterator[bool]:
    """Have the spec and the device rules of a container for oneself; yield whether that is so, without `wait` at once.

    What one reads in the spec and then makes the kernel's rules is old when another has changed both in between.
    """
    fd = os.open(folder.path / "devices.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield lock.take(fd, wait=wait)
    finally:
        os.close(fd)
