"""mlbox gpu: the GPUs of the host, and the devices of containers that run."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlbox.cli.home import default_store
from mlbox.cli.render import Format, ago, clock, mega, print_json, print_table

if TYPE_CHECKING:
    from mlbox.engine.gpus import GpuState, Holder
    from mlbox.gpu.fit import Needs
    from mlbox.lock.model import Lock
    from mlbox.runtime.containers import Containers

app = typer.Typer(rich_markup_mode=None)
Form = Annotated[Format, typer.Option("--format")]


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="IMAGE|FOLDER", help="An image, or a project with a lock.")] = ".",
    gpu: Annotated[str, typer.Option(help="'RTX 5090', 'H100', sm_120; default: this host's GPUs.")] = "",
    driver: Annotated[str, typer.Option(help="Version of the driver there, like 535.104.05.")] = "",
    accelerator: Annotated[
        str, typer.Option(help="Which of the lock's or the image's; default: what suits the driver.")
    ] = "",
    form: Form = Format.TABLE,
) -> int:
    """Say whether an environment fits a GPU and its driver, before it starts. The exit code is 1 when it does not."""
    import sys

    from mlbox.engine.checking import check as check_needs

    needs, remarks = _looked_at(what, accelerator, driver)
    found = check_needs(needs, gpu=gpu, driver=driver)
    if form is Format.JSON:
        print_json(found)
    else:
        for one in found:
            name = one.gpu or (f"driver {one.driver}" if one.driver else "no GPU")
            print(f"{one.fit.verdict:<8} {name}")
            for reason in one.fit.reasons:
                print(f"         {reason}")
            if one.fit.hint:
                print(f"         hint: {one.fit.hint}")
    for line in remarks:
        print(f"note: {line}", file=sys.stderr)
    return int(any(one.fit.verdict == "refused" for one in found))


def _looked_at(what: str, accelerator: str, driver: str) -> "tuple[Needs, tuple[str, ...]]":
    """Return what a project's lock or an image needs of a GPU host, and what else there is to say of it."""
    from pathlib import Path

    from mlbox.cli.progress import listener
    from mlbox.engine.checking import driver_version, needs_of, needs_of_lock
    from mlbox.engine.cuda import remarks
    from mlbox.engine.freshness import lock_path
    from mlbox.engine.linking import remarks_of
    from mlbox.engine.variants import meant
    from mlbox.errors import UsageError
    from mlbox.lock.file import read_lock

    if (path := lock_path(Path(what))).is_file():
        lock = _chosen(read_lock(path), accelerator, driver)
        return needs_of_lock(lock), tuple(remarks(lock))
    if what.startswith((".", "/")) and Path(what).is_dir():
        raise UsageError(f"no {path.name} in {Path(what).absolute()}", hint="'mlbox lock' makes it; or name an image")
    store = default_store()
    with store.using(), listener() as talk:
        version = driver_version(driver) if driver else None
        digest = store.images.resolve(meant(store, what, talk, accelerator=accelerator, driver=version))
        return needs_of(store, digest), remarks_of(store, digest)


def _chosen(lock: "Lock", accelerator: str, driver: str) -> "Lock":
    import sys

    from mlbox.engine.checking import driver_version
    from mlbox.gpu.accelerator import choose
    from mlbox.lock.accelerators import for_accelerator

    if not accelerator and len(lock.accelerators) > 1:
        choice = choose(lock.accelerators, driver=driver_version(driver) if driver else None)
        print(f"note: accelerator {choice.name}: {choice.reason}", file=sys.stderr)
        accelerator = choice.name
    return for_accelerator(lock, accelerator or lock.target.accelerator)


group = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.add_typer(
    group, name="gpu", help="The GPUs of the host; the devices of running containers, verified, given and taken away."
)

Container = Annotated[str, typer.Argument(metavar="CONTAINER")]
Asked = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="As --device of 'mlbox run' takes them.")]


def _containers() -> "Containers":
    from mlbox.engine.running import containers_of
    from mlbox.paths import Home

    return containers_of(Home.default())


@group.command(name="ls")
def list_gpus(form: Form = Format.TABLE) -> None:
    """List the host's GPUs: what they are, how much of them is used, and who holds them."""
    import sys

    from mlbox.engine.gpus import look

    host = look(_containers())
    if form is Format.JSON:
        print_json(host)
        return
    if driver := host.inventory.driver:
        print(f"NVIDIA driver {driver.version}" + (f", CUDA {driver.cuda}" if driver.cuda else ""))
    if not host.gpus:
        print("no GPUs on this host", file=sys.stderr)
    print_table(("GPU", "NAME", "MEMORY", "BUSY", "DEVICE", "HELD BY"), [_row(state) for state in host.gpus])
    for problem in host.inventory.problems:
        print(f"problem: {problem}", file=sys.stderr)


def _row(state: "GpuState") -> tuple[str, ...]:
    gpu, use = state.gpu, state.use
    used = f"{mega(use.memory_used)} / " if use and use.memory_used is not None else ""
    mig = "".join(f", MIG {gpu.index}:{one.index} {one.profile}".rstrip() for one in gpu.mig)
    return (
        f"{gpu.vendor}:{gpu.index}",
        gpu.name + mig,
        used + (mega(gpu.memory) if gpu.memory else "-"),
        f"{use.busy}%" if use and use.busy is not None else "-",
        gpu.uuid or gpu.pci or "-",
        ", ".join(_holder(one) for one in state.holders) or "-",
    )


def _holder(one: "Holder") -> str:
    who = one.container or f"{one.user}'s {one.name}"
    memory = f", {mega(one.memory)}" if one.memory else ""
    return f"{who} ({one.pid}{memory})" if one.pid else f"{who} (idle)"


@group.command()
def leases(form: Form = Format.TABLE) -> None:
    """List which containers have which GPUs, and how many wait."""
    import sys

    from mlbox.engine.gpus import leases as all_leases

    found = all_leases()
    if form is Format.JSON:
        print_json(found)
        return
    rows = [
        (
            one.gpu,
            one.name,
            one.container[:12],
            one.user,
            ago(one.since),
            clock(one.until) if one.until else "-",
            "idle" if one.idle else "-" if one.busy is None else f"{one.busy}%",
            "shared" if one.shared else "",
        )
        for one in found.leases
    ]
    print_table(("GPU", "CONTAINER", "ID", "USER", "SINCE", "UNTIL", "BUSY", ""), rows)
    if found.waiting:
        print(f"{found.waiting} waiting", file=sys.stderr)


@group.command()
def cdi(
    capabilities: Annotated[str, typer.Option(help="As --gpu-capabilities of 'mlbox run'.")] = "",
) -> None:
    """Print the CDI spec of the GPUs, for podman and others: mlbox gpu cdi > /etc/cdi/mlbox.json."""
    from mlbox.engine.gpus import cdi as spec_of_host

    print_json(spec_of_host(capabilities))


@group.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CONTAINER]...", help="Default: all that run.")] = None,
    form: Form = Format.TABLE,
) -> int:
    """Read back the kernel's device rules of running containers and compare them with what they were given.

    The exit code is 1 when any differs.
    """
    from mlbox.engine.devices import verify as verify_container

    containers = _containers()
    chosen = names or [one.id for one in containers.list() if one.status == "running"]
    found = [verify_container(containers, name) for name in chosen]
    if form is Format.JSON:
        print_json(found)
    else:
        rows = [
            (one.id[:12], one.name, ", ".join(one.devices) or "-", "; ".join(one.problems) or "as given")
            for one in found
        ]
        print_table(("CONTAINER", "NAME", "DEVICES", "RULES"), rows)
    return int(any(one.problems for one in found))


@group.command()
def attach(name: Container, devices: Asked) -> None:
    """Give devices to a running container, until it stops."""
    from mlbox.engine.devices import attach as attach_devices

    for path in attach_devices(_containers(), name, devices):
        print(path)


@group.command()
def detach(
    name: Container,
    devices: Asked,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also when programs have them open.")] = False,
) -> None:
    """Take devices away from a running container."""
    from mlbox.engine.devices import detach as detach_devices

    for path in detach_devices(_containers(), name, devices, force=force):
        print(path)


@group.command()
def release(
    name: Container,
    gpus: Annotated[
        list[str] | None, typer.Argument(metavar="[GPU]...", help="As --gpus device= names them; default: all it has.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also when programs have them open.")] = False,
) -> None:
    """Take GPUs from a running container and give back their leases: they are free for others."""
    from mlbox.engine.releasing import release as release_gpus

    for label in release_gpus(_containers(), name, tuple(gpus or ()), force=force):
        print(label)


@group.command()
def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    form: Form = Format.TABLE,
) -> None:
    """Show how busy the GPUs are, and which containers and users have them, until interrupted."""
    from mlbox.cli.gpu_top import top as show
    from mlbox.engine.watching import sample

    containers = _containers()
    show(lambda: sample(containers), interval, once=once, form=form)
