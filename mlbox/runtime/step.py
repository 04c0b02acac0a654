"""Build steps in throw-away containers: the StepRunner that the engine gives to the build."""

from collections import deque

from mlbox.build.step import Step
from mlbox.errors import BuildError, ContainerError
from mlbox.oci.image import ContainerConfig, ImageConfig, RootFS
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
from mlbox.runtime.oci_runtime import OciRuntime
from mlbox.runtime.options import BindMount, RunOptions

_SHOWN = 30
_KEPT = 64 << 10


class ContainerSteps:
    """Runs steps with the safe defaults of any container, without network unless the step asks for it."""

    def __init__(self, home: Home, runtime: OciRuntime | None = None) -> None:
        self._containers = Containers(home, runtime)

    def run(self, step: Step) -> None:
        """Run `step` to its end; raises BuildError with the last lines of its output when it fails."""
        config = ImageConfig(
            architecture="", os="linux", config=ContainerConfig(env=_env(step)), rootfs=RootFS(diff_ids=())
        )
        try:
            container = self._containers.create("", "", config, step.lower, _options(step))
            session = self._containers.start(container.id, attach=True)
            output: deque[bytes] = deque(maxlen=64)
            try:
                for _, data in session.output():
                    output.append(data)
                code = session.wait()
            finally:
                session.close()
        except ContainerError as problem:
            raise BuildError(f"a build step could not run: {problem.message}", hint=problem.hint) from problem
        if code:
            raise BuildError(f"{' '.join(step.argv)[:200]} failed with status {code}\n{_tail(output)}")


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
        remove=True,
    )


def _env(step: Step) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in sorted(step.env.items()))


def _tail(output: deque[bytes]) -> str:
    text = b"".join(output)[-_KEPT:].decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-_SHOWN:])
