"""Containers of images of the store: any command, and a project's declared tasks."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mlbox.engine.arch import host_arch, runs_here
from mlbox.engine.trust.admission import admit_run, admit_start
from mlbox.engine.variants import meant
from mlbox.errors import ContainerError, MlboxError, NotFoundError, UsageError
from mlbox.events import SILENT, Listener
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.paths import Home
from mlbox.runtime.containers import Containers
from mlbox.runtime.options import BindMount, RunOptions
from mlbox.runtime.record import Container, Record
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.build.step import StepRunner
    from mlbox.engine.granting import HostDevices
    from mlbox.project.model import Health, Project, Task
    from mlbox.runtime.grant import Grant
    from mlbox.runtime.session import Session

Say = Callable[[str], None]
Talk = Callable[[], AbstractContextManager[Listener]]
Pull = Literal["missing", "always", "never"]
_LOOPBACK = "127.0.0.1"


def containers_of(home: Home, say: Say = lambda _: None) -> Containers:
    """Return the containers of a store, with what gives them devices and asks the policy before anything is started.

    `say` hears what is waited for.
    """
    return Containers(home, granter=_Devices(say, partial(Store, home)), admit=partial(admit_start, home))


class _Devices:
    """Gives devices; what knows them is imported when the first container wants one."""

    def __init__(self, say: Say, store: Callable[[], Store]) -> None:
        self._say = say
        self._store = store

    @cached_property
    def _host(self) -> "HostDevices":
        from mlbox.engine.granting import HostDevices

        return HostDevices(say=self._say, store=self._store)

    def check(self, options: RunOptions) -> None:
        """Raise MlboxError for what can never be had here."""
        self._host.check(options)

    def grant(self, record: Record) -> "Grant":
        """Return the devices of a container that is about to start."""
        return self._host.grant(record)


def create_container(store: Store, image: str, options: RunOptions) -> Container:
    """Make a container of `image` (a name, a digest, or the beginning of one); it does not run yet."""
    with store.using():
        digest = store.images.resolve(image)
        found = store.images.load(digest)
        admit_run(store, image, found)
        config = found.config
        missing = [diff_id for diff_id in config.rootfs.diff_ids if not store.layers.has(diff_id)]
        if missing:
            raise ContainerError(
                f"image {image} lacks layer {missing[0]}", hint="build the image again; 'mlbox fsck' says what else"
            )
        if not runs_here(config.architecture):
            raise ContainerError(
                f"image {image} is for {config.architecture}, this machine is {host_arch()}",
                hint=f"'mlbox pull --arch {host_arch()}', or 'mlbox lock --arch {host_arch()}' and a build",
            )
        if options.gpu_check and options.wants_gpus:
            _refuse_unfit(store, digest, options.gpus)
        lower = [store.layers.root(diff_id) for diff_id in config.rootfs.diff_ids]
        return containers_of(store.home).create(digest, image, config, lower, options)


def _refuse_unfit(store: Store, digest: Digest, gpus: str) -> None:
    from mlbox.engine.checking import refuse_unfit
    from mlbox.gpu.choose import parse_request

    refuse_unfit(store, digest, parse_request(gpus))


def run_image(
    home: Home,
    image: str,
    options: RunOptions,
    *,
    detach: bool,
    cidfile: Path | None,
    say: Say,
    pull: Pull = "never",
    accelerator: str = "",
    talk: Talk = lambda: nullcontext(SILENT),
) -> int:
    """Run a new container and return its exit code; with `detach` say its id and return 0 at once.

    Of images that were built for several accelerators, the one for `accelerator` or else for this host is taken.
    `pull` says when the image is fetched from its registry, `talk` makes the listener of that.
    What keeps it from starting has Docker's exit codes: 125, 126 not executable, 127 not found.
    """
    if options.tty and options.interactive and not detach and not os.isatty(0):
        raise UsageError("-t wants a terminal, and standard input is none", hint="leave -t out; -i alone passes a pipe")
    containers = containers_of(home, partial(_tell, talk))
    try:
        store = Store(home)
        with talk() as listener:
            image = meant(store, image, listener, accelerator=accelerator)
        _bring(store, image, pull, talk)
        container = _create(store, image, options, cidfile)
        return _run(containers, container, detach=detach, say=say, tell=partial(_tell, talk))
    except UsageError:
        raise
    except MlboxError as problem:
        if problem.exit_code == MlboxError.exit_code:
            problem.exit_code = ContainerError.exit_code
        raise


def _bring(store: Store, image: str, pull: Pull, talk: Talk) -> None:
    """Have the image in the store, as far as `pull` allows to fetch it."""
    if pull == "never":
        return
    missing: NotFoundError | None = None
    if pull == "missing":
        try:
            store.images.resolve(image)
            return
        except NotFoundError as problem:
            missing = problem
    if image.startswith("sha256:"):  # a registry is asked by name
        return
    from mlbox.engine.sharing import pull as pull_image

    try:
        with talk() as listener:
            listener.step(f"pull {image}")
            pull_image(store.home, image, listener=listener)
    except UsageError:
        raise
    except MlboxError as problem:
        if missing is not None:
            problem.message = f"{missing.message} here, and {problem.message}"
            problem.args = (problem.message,)
            close = missing.hint if missing.hint and missing.hint.startswith("did you mean") else None
            problem.hint = close or problem.hint
        raise


def _create(store: Store, image: str, options: RunOptions, cidfile: Path | None) -> Container:
    if cidfile is None:
        return create_container(store, image, options)
    try:
        with cidfile.open("x") as file:
            container = create_container(store, image, options)
            file.write(container.id)
    except FileExistsError as problem:
        raise ContainerError(f"--cidfile {cidfile} exists already", hint="remove it, or name another file") from problem
    except OSError as problem:
        raise ContainerError(f"--cidfile {cidfile}: {problem.strerror}", hint="name a file in a folder") from problem
    except MlboxError:
        cidfile.unlink()
        raise
    return container


def _tell(talk: Talk, text: str) -> None:
    with talk() as listener:
        listener.note(text)


def _run(containers: Containers, container: Container, *, detach: bool, say: Say, tell: Say) -> int:
    options = container.record.options
    try:
        with _ended_by_sigterm() if options.remove else nullcontext():
            session = containers.start(
                container.id, attach=not detach, stdin=options.interactive, size=_terminal(options)
            )
    except BaseException:  # also when who waits for a GPU has enough of it
        if options.remove:
            _forget(containers, container)
        raise
    try:
        if options.wants_gpus:
            _count_energy(containers, container, wait=detach)
        if detach:
            say(container.id)
            return 0
        # What it ran by is gone with a container made with --rm, and explains a failure.
        explain = None if options.interactive else _explainer(containers, container)
        code = session.stream(stdin=0 if options.interactive else None, tty=options.tty)
        if session.ended and session.ended.timed_out:
            tell("its time (--for) was over")
        elif code and explain:
            explain(session, tell)
        return 0 if code is None else code
    finally:
        session.close()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end us as ^C does, with what has to be done last; batch systems send it to those who wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _count_energy(containers: Containers, container: Container, *, wait: bool) -> None:
    from mlbox.engine.watching import remember_energy

    # Beside the program, which runs already: NVIDIA's library may take a while.
    threading.Thread(target=remember_energy, args=(containers.files(container),), daemon=not wait).start()


def _explainer(containers: Containers, container: Container) -> Callable[["Session", Say], None]:
    """Keep what a container runs by; return what says why it failed."""
    spec = containers.files(container).read("bundle/config.json")

    def explain(session: "Session", tell: Say) -> None:
        from mlbox.engine.explaining import explain_session

        if found := explain_session(containers, container, spec, session):
            tell(f"{found.cause}\nhint: {found.fix}")

    return explain


def _forget(containers: Containers, container: Container) -> None:
    # A monitor that lives removes a --rm container itself; before it lived, nobody else does.
    try:
        containers.remove(container.id, force=True)
    except MlboxError:
        return


def _terminal(options: RunOptions) -> tuple[int, int] | None:
    if not options.tty or not os.isatty(0):
        return None
    size = os.get_terminal_size(0)
    return size.lines, size.columns


def task_options(project: "Project", task: "Task", extra: tuple[str, ...], options: RunOptions) -> RunOptions:
    """Return `options` with the task's command, environment and folders: outputs to write, inputs to read."""
    root, workdir = project.root, project.settings.workdir
    mounts = []
    if task.outputs:
        mounts.append(BindMount(source=str(_outputs(root, task.outputs)), target=f"{workdir}/{task.outputs}"))
    for folder in task.inputs:
        source = root / folder
        if not source.exists():
            raise UsageError(f"the task's input {folder} does not exist", hint=f"put it at {source}")
        mounts.append(BindMount(source=str(source), target=f"{workdir}/{folder}", readonly=True))
    address = {"HOST": _LOOPBACK, "PORT": str(task.port)} if task.port else {}
    return msgspec.structs.replace(
        options,
        command=(*task.command, *extra),
        gpus=options.gpus or str(task.gpus),
        env={**address, **task.env, **options.env},
        mounts=(*options.mounts, *mounts),
    )


def serve(store: Store, image: str, options: RunOptions, task: "Task", *, detach: bool, say: Say) -> int:
    """Run a service, say when and where it answers, and go on until it ends (or, with `detach`, until it answers)."""
    _refuse_taken_port(task.port)
    containers = containers_of(store.home, say)
    container = create_container(store, image, options)
    session = containers.start(container.id, attach=True)
    ended = threading.Event()
    ready = threading.Thread(target=_announce, args=(task, ended.wait, say), daemon=True)
    try:
        if detach:
            _wait_ready(task, lambda seconds: session.wait(seconds) is not None)
            say(f"ready: {url_of(task)} (container {container.name})")
            return 0
        ready.start()
        code = session.stream()
        return 0 if code is None else code
    finally:
        ended.set()
        session.close()


def _refuse_taken_port(port: int) -> None:
    """Raise ContainerError when a program of the host listens there: it would answer in the service's place."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as problem:
            raise ContainerError(
                f"port {port} of {_LOOPBACK} is taken: {problem.strerror}",
                hint="stop what listens there ('mlbox ps' shows containers), or change the task's port",
            ) from problem


def url_of(task: "Task") -> str:
    """Return the address a served task answers at."""
    return f"http://{_LOOPBACK}:{task.port}/"


def _announce(task: "Task", ended: Callable[[float], bool], say: Say) -> None:
    try:
        _wait_ready(task, ended)
    except ContainerError as problem:
        say(f"not ready: {problem.message}")
    else:
        say(f"ready: {url_of(task)}")


def _wait_ready(task: "Task", ended: Callable[[float], bool]) -> None:
    from mlbox.runtime.health import wait_healthy

    health: Health | None = task.health
    if health is not None:
        wait_healthy(task.port, health.path, ended=ended, timeout=health.timeout)


def _outputs(root: Path, folder: str) -> Path:
    """Make the outputs' folder where it is missing; it belongs to whom the project belongs."""
    path = root / folder
    if not path.is_dir():
        path.mkdir(parents=True)
        owner = root.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
    return path


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file of NAME=VALUE lines; a bare NAME passes our own value, '#' begins a comment."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"--env-file {path}: {problem}") from problem
    variables = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.lstrip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not name.isidentifier() and any(character.isspace() for character in name):
            raise UsageError(f"--env-file {path}:{number}: not a variable: {line[:80]!r}", hint="NAME=VALUE")
        if equals:
            variables[name] = value
        elif name in os.environ:
            variables[name] = os.environ[name]
    return variables


def used_images(containers: Containers) -> dict[Digest, list[str]]:
    """Return the containers of each image, by name."""
    used: dict[Digest, list[str]] = {}
    for container in containers.list():
        used.setdefault(Digest(container.record.image_digest), []).append(container.name)
    return used


def used_layers(store: Store, containers: Containers) -> set[DiffID]:
    """Return the layers that containers stand on."""
    folders = {path.parent.name for path in containers.used_layers()}
    return {diff_id for diff_id in store.layers.diff_ids() if hex_of(diff_id) in folders}


def step_runner(home: Home) -> "StepRunner":
    """Return what runs build steps."""
    from mlbox.runtime.step import ContainerSteps

    return ContainerSteps(home, granter=_Devices(lambda _: None, partial(Store, home)))
