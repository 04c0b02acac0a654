"""mlbox run: any image, any command."""

import os
from pathlib import Path
from typing import Annotated, Literal

from mlbox.cli.progress import listener
from mlbox.cli.words import App, Argument, Option

app = App()


# What follows IMAGE belongs to the command, dashes included.
@app.command(interspersed=False)
def run(
    image: Annotated[str, Argument(metavar="IMAGE")],
    argv: Annotated[list[str] | None, Argument(metavar="[COMMAND]...")] = None,
    detach: Annotated[bool, Option("--detach", "-d", help="Print the id and leave it running.")] = False,
    interactive: Annotated[bool, Option("--interactive", "-i", help="Keep stdin open.")] = False,
    tty: Annotated[bool, Option("--tty", "-t", help="A terminal for the command.")] = False,
    rm: Annotated[bool, Option("--rm", help="Remove the container when it ends.")] = False,
    name: Annotated[str, Option(help="Name of the container.")] = "",
    env: Annotated[list[str] | None, Option("--env", "-e", help="NAME=VALUE, or NAME to pass ours.")] = None,
    env_file: Annotated[list[Path] | None, Option(help="File of NAME=VALUE lines.")] = None,
    volume: Annotated[list[str] | None, Option("--volume", "-v", help="SOURCE:TARGET[:ro].")] = None,
    mount: Annotated[list[str] | None, Option(help="type=bind,source=A,target=B[,readonly].")] = None,
    tmpfs: Annotated[list[str] | None, Option(help="TARGET[:size=64m].")] = None,
    workdir: Annotated[str, Option("--workdir", "-w")] = "",
    user: Annotated[str, Option("--user", "-u", help="NAME or UID, with :GROUP or :GID.")] = "",
    entrypoint: Annotated[str | None, Option(help="Instead of the image's; '' for none.")] = None,
    hostname: Annotated[str, Option()] = "",
    network: Annotated[str, Option(help="host or none.")] = "host",
    publish: Annotated[list[str] | None, Option("--publish", "-p", help="Needs bridge networks.")] = None,
    gpus: Annotated[str, Option(help="all, a number, device=0,2, device=GPU-…, device=0:1, none.")] = "none",
    gpu_capabilities: Annotated[
        str, Option(help="compute, utility, video, graphics, display, ngx or all; default: the image's.")
    ] = "",
    gpu_share: Annotated[bool, Option("--gpu-share", help="Together with others that say so too.")] = False,
    wait: Annotated[bool, Option("--wait", help="Until the GPUs are free, in a queue.")] = False,
    no_check: Annotated[bool, Option("--no-check", help="Also when the image does not fit the GPU.")] = False,
    rdma: Annotated[bool, Option("--rdma", help="The InfiniBand devices.")] = False,
    device: Annotated[
        list[str] | None,
        Option(help="A node, /dev/fuse[:/dev/there][:rwm], or a CDI device, vendor.com/class=name."),
    ] = None,
    read_only: Annotated[bool, Option("--read-only", help="The root file system.")] = False,
    cpus: Annotated[float | None, Option(min=0.01)] = None,
    memory: Annotated[str, Option("--memory", "-m", help="Like 8g.")] = "",
    memory_swap: Annotated[str, Option(help="Memory and swap together, like 10g.")] = "",
    pids_limit: Annotated[int, Option(help="-1 for none.")] = 32768,
    shm_size: Annotated[str, Option(help="Default: half of the memory.")] = "",
    ulimit: Annotated[list[str] | None, Option(help="NAME=SOFT[:HARD].")] = None,
    cap_add: Annotated[list[str] | None, Option()] = None,
    cap_drop: Annotated[list[str] | None, Option()] = None,
    security_opt: Annotated[list[str] | None, Option(help="seccomp=FILE or seccomp=unconfined.")] = None,
    init: Annotated[bool, Option("--init", help="Reap children and forward signals as PID 1.")] = False,
    stop_signal: Annotated[str, Option()] = "",
    stop_timeout: Annotated[float, Option(min=0, help="Seconds from the stop signal to SIGKILL.")] = 10.0,
    limit: Annotated[str, Option("--for", help="Stop it after that time: 90s, 30m, 8h, 2d.")] = "",
    restart: Annotated[str, Option(help="no, always, on-failure[:N].")] = "no",
    label: Annotated[list[str] | None, Option("--label", "-l", help="NAME=VALUE.")] = None,
    cidfile: Annotated[Path | None, Option(help="Write the container's id to this new file.")] = None,
    accelerator: Annotated[str, Option(help="The image's for it, IMAGE-cu126; default: what suits this host.")] = "",
    pull: Annotated[str, Option(metavar="WHEN", help="missing, always or never: fetch the image.")] = "missing",
) -> int:
    """Run a command in a new container; the exit code is the command's, 125 when it could not be started."""
    from mlbox.engine.running import read_env_file, run_image
    from mlbox.paths import Home
    from mlbox.runtime import options as o

    _refuse(publish)
    _check_gpus(gpus)
    variables: dict[str, str] = {}
    for file in env_file or ():
        variables |= read_env_file(file)
    asked = o.RunOptions(
        name=name,
        command=tuple(argv or ()),
        entrypoint=None if entrypoint is None else tuple(filter(None, (entrypoint,))),
        env=variables | environment(env or []),
        workdir=workdir,
        user=user,
        hostname=hostname,
        labels=dict(_pair(text, "--label") for text in label or ()),
        tty=tty,
        interactive=interactive,
        read_only=read_only,
        mounts=(
            *map(o.parse_volume, volume or ()),
            *map(o.parse_mount, mount or ()),
            *map(o.parse_tmpfs, tmpfs or ()),
        ),
        devices=tuple(device or ()),
        gpus=gpus,
        gpu_capabilities=gpu_capabilities,
        gpu_wait=wait,
        gpu_share=gpu_share,
        gpu_check=not no_check,
        rdma=rdma,
        network=_network(network),
        cpus=cpus,
        memory=o.parse_size(memory) if memory else None,
        memory_swap=o.parse_size(memory_swap) if memory_swap else None,
        pids_limit=pids_limit,
        shm_size=o.parse_size(shm_size) if shm_size else None,
        ulimits=tuple(map(o.parse_ulimit, ulimit or ())),
        cap_add=tuple(cap_add or ()),
        cap_drop=tuple(cap_drop or ()),
        security_opt=tuple(security_opt or ()),
        init=init,
        stop_signal=stop_signal,
        stop_timeout=stop_timeout,
        time_limit=o.parse_duration(limit) if limit else None,
        restart=o.parse_restart(restart),
        remove=rm,
    )
    return run_image(
        Home.default(),
        image,
        asked,
        detach=detach,
        cidfile=cidfile,
        say=print,
        pull=_pull(pull),
        accelerator=accelerator,
        talk=listener,
    )


def _refuse(publish: list[str] | None) -> None:
    from mlbox.errors import UsageError

    if publish:
        raise UsageError(
            f"-p {publish[0]}: publishing ports needs a bridge network, which this version of mlbox does not have",
            hint="with --network host (the default) the command's own ports are the host's: bind to 127.0.0.1 inside",
        )


def _check_gpus(text: str) -> None:
    if text != "none":
        from mlbox.gpu.choose import parse_request

        parse_request(text)


def _pull(when: str) -> Literal["missing", "always", "never"]:
    from mlbox.errors import UsageError

    match when:
        case "missing" | "always" | "never":
            return when
    raise UsageError(f"--pull {when!r}", hint="--pull missing, always or never")


def _network(name: str) -> Literal["host", "none"]:
    from mlbox.errors import UsageError

    match name:
        case "host" | "none":
            return name
    raise UsageError(f"no network {name!r}", hint="this version of mlbox has 'host' and 'none'")


def _pair(text: str, option: str) -> tuple[str, str]:
    from mlbox.errors import UsageError

    name, equals, value = text.partition("=")
    if not name or "\0" in text:
        raise UsageError(f"{option} {text!r} has no name", hint=f"{option} NAME=VALUE")
    return name, value if equals else ""


def environment(items: list[str]) -> dict[str, str]:
    """Return the variables that `-e` items mean."""
    # `-e NAME` passes our own value, and nothing when we have none, as Docker does.
    passed = {item: os.environ[item] for item in items if "=" not in item and item in os.environ}
    return passed | dict(_pair(item, "-e") for item in items if "=" in item)
