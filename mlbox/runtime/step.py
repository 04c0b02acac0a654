"""Build steps in throw-away containers: the StepRunner that the engine gives to the build."""

import os
import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlbox.build.step import Step
from mlbox.errors import BuildError, ContainerError, MlboxError, NotFoundError
from mlbox.oci.image import ContainerConfig, ImageConfig, RootFS
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
from mlbox.runtime.oci_runtime import OciRuntime
from mlbox.runtime.options import BindMount, RunOptions
from mlbox.units import mega

if TYPE_CHECKING:
    from mlbox.runtime.grant import Granter

_SHOWN = 30
_KEPT = 64 << 10
_PIDS = 4096
"""Processes and threads of a step: compilers on every processor of a large machine, and no fork bomb."""
_SPARE = 1 << 30
"""Bytes of the disk that a step leaves free, or it is ended; half of them where there are fewer."""
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*|[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""What moves a terminal's cursor, colours it or names its window (ECMA-48)."""
_LOOK = 0.5
"""Seconds between two looks at the disk."""
_PATIENCE = 60.0
"""Seconds in which a runtime that lost its monitor ends; it needs milliseconds, and more on a host that is busy."""


class ContainerSteps:
    """Runs steps with the safe defaults of any container, without network unless the step asks for it."""

    def __init__(self, home: Home, runtime: OciRuntime | None = None, granter: "Granter | None" = None) -> None:
        """`granter` gives GPUs to steps that ask for them."""
        self._containers = Containers(home, runtime, granter)
        self._root = home.root

    def run(self, step: Step) -> None:
        """Run `step` to its end; raises BuildError with the last lines of its output when it fails."""
        config = ImageConfig(
            architecture="", os="linux", config=ContainerConfig(env=_env(step)), rootfs=RootFS(diff_ids=())
        )
        self._root.mkdir(parents=True, exist_ok=True)
        full, spare = False, min(_SPARE, _free(self._root) // 2)
        try:
            container = self._containers.create("", "", config, step.lower, _options(step))
            output: deque[bytes] = deque(maxlen=64)
            try:
                with closing(self._containers.start(container.id, attach=True)) as session:
                    with self._watched(container.id, spare) as filled:
                        for _, data in session.output():
                            output.append(data)
                        code = session.wait()
                    full = filled.is_set()
            except BaseException:
                self._remove(container.id)
                raise
        except ContainerError as problem:
            raise BuildError(f"a build step could not run: {problem.message}", hint=problem.hint) from problem
        if full:
            raise BuildError(
                f"{_said(step)} was ended: it left less than {mega(spare)} of the disk free",
                hint="make room in the store ('mlbox prune', 'mlbox df'), or move it: MLBOX_HOME",
            )
        if code:
            raise BuildError(f"{_said(step)} failed with status {code}\n{_tail(output)}".rstrip())

    def _remove(self, id: str) -> None:
        """Remove what a monitor that was killed left running; its runtime may hold on to it for a moment."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                self._containers.remove(id, force=True)
            except NotFoundError:
                return
            except (MlboxError, OSError):
                time.sleep(0.05)
            else:
                return

    @contextmanager
    def _watched(self, container: str, spare: int) -> Iterator[threading.Event]:
        """End the container when it leaves less than `spare` bytes of the disk; yields what then is set."""
        filled, done = threading.Event(), threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK):
                if _free(self._root) < spare:
                    filled.set()
                    self._kill(container)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield filled
        finally:
            done.set()
            watcher.join()

    def _kill(self, container: str) -> None:
        with suppress(MlboxError):  # it ended meanwhile
            self._containers.kill(container)


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _options(step: Step) -> RunOptions:
    mounts = tuple(
        BindMount(source=str(bind.source), target=bind.target, readonly=bind.readonly, owner="keep")
        for bind in step.binds
    )
    return RunOptions(
        entrypoint=(),
        command=step.argv,
        workdir=step.cwd,
        mounts=mounts,
        network="host" if step.network else "none",
        gpus="all" if step.gpus else "",
        gpu_wait=step.gpus,
        gpu_check=False,
        pids_limit=_PIDS,
        remove=True,
        changes=str(step.changes or ""),
        tied=True,
    )


def _said(step: Step) -> str:
    return shlex.join(step.argv)[:200]


def _env(step: Step) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in sorted(step.env.items()))


def _tail(output: deque[bytes]) -> str:
    """Return the last lines, without what would drive the terminal; the first may be the end of a longer one."""
    text = _CONTROL.sub("", b"".join(output)[-_KEPT:].decode(errors="replace"))
    return "\n".join(text.strip().splitlines()[-_SHOWN:])
