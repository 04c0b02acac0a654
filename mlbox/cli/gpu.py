"""mlbox gpu: the devices of containers that run."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlbox.cli.render import Format, print_json, print_table

if TYPE_CHECKING:
    from mlbox.runtime.containers import Containers

app = typer.Typer(rich_markup_mode=None)
gpu = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.add_typer(gpu, name="gpu", help="Devices of containers: what they may use, verified, given and taken away.")

Container = Annotated[str, typer.Argument(metavar="CONTAINER")]
Asked = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="As --device of 'mlbox run' takes them.")]


def _containers() -> "Containers":
    from mlbox.engine.running import containers_of
    from mlbox.paths import Home

    return containers_of(Home.default())


@gpu.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CONTAINER]...", help="Default: all that run.")] = None,
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
) -> int:
    """Read back the kernel's device rules of running containers and compare them with what they were given.

    The exit code is 1 when any differs.
    """
    from mlbox.engine.devices import verify as verify_container

    containers = _containers()
    chosen = names or [one.id for one in containers.list(all=False)]
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


@gpu.command()
def attach(name: Container, devices: Asked) -> None:
    """Give devices to a running container, until it stops."""
    from mlbox.engine.devices import attach as attach_devices

    for path in attach_devices(_containers(), name, devices):
        print(path)


@gpu.command()
def detach(
    name: Container,
    devices: Asked,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also when programs have them open.")] = False,
) -> None:
    """Take devices away from a running container."""
    from mlbox.engine.devices import detach as detach_devices

    for path in detach_devices(_containers(), name, devices, force=force):
        print(path)
