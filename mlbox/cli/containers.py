"""Commands on containers: ps, logs, exec, start, stop, kill, wait, rm."""

import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from mlbox.cli.render import Format, ago, print_json, print_table
from mlbox.cli.words import App, Argument, Option

if TYPE_CHECKING:
    from mlbox.runtime.containers import Containers
    from mlbox.runtime.record import Container

app = App()

Name = Annotated[str, Argument(metavar="CONTAINER", help="Name, id, or the beginning of an id.")]
Names = Annotated[list[str], Argument(metavar="CONTAINER...")]


def _containers() -> "Containers":
    from mlbox.paths import Home
    from mlbox.runtime.containers import Containers

    return Containers(Home.default())


@app.command()
def ps(
    everything: Annotated[bool, Option("--all", "-a", help="Also those that do not run.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only ids.")] = False,
    form: Annotated[Format, Option("--format")] = Format.TABLE,
) -> None:
    """List containers."""
    rows = _containers().list(all=everything)
    if quiet:
        for row in rows:
            print(row.short_id)
    elif form is Format.JSON:
        print_json(rows)
    else:
        table = [
            (one.short_id, one.name, _image(one), " ".join(one.record.options.command)[:40], _status(one), _age(one))
            for one in rows
        ]
        print_table(("CONTAINER", "NAME", "IMAGE", "COMMAND", "STATUS", "CREATED"), table)


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, Option("--follow", "-f", help="Go on until the container ends.")] = False,
    tail: Annotated[int | None, Option("--tail", "-n", min=0, help="Only the last lines.")] = None,
    since: Annotated[str, Option(help="Only later lines: 10m, 2h, or a time.")] = "",
    timestamps: Annotated[bool, Option("--timestamps", help="Say when each line was written.")] = False,
) -> None:
    """Print what a container wrote, each stream to its own."""
    for line in _containers().logs(name, follow=follow, tail=tail, since=_moment(since)):
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        stream.write(f"{line.time} {line.log}" if timestamps else line.log)
        stream.flush()


@app.command("exec", interspersed=False)
def exec_(
    name: Name,
    argv: Annotated[list[str], Argument(metavar="COMMAND...")],
    detach: Annotated[bool, Option("--detach", "-d")] = False,
    interactive: Annotated[bool, Option("--interactive", "-i", help="Pass our stdin.")] = False,
    tty: Annotated[bool, Option("--tty", "-t", help="A terminal for the command.")] = False,
    env: Annotated[list[str] | None, Option("--env", "-e")] = None,
    user: Annotated[str, Option("--user", "-u")] = "",
    workdir: Annotated[str, Option("--workdir", "-w")] = "",
) -> int:
    """Run one more command in a running container."""
    from mlbox.cli.run import environment
    from mlbox.engine.running import containers_of
    from mlbox.errors import UsageError
    from mlbox.paths import Home

    if tty and interactive and not sys.stdin.isatty():
        raise UsageError("-t wants a terminal, and standard input is none", hint="leave -t out; -i alone passes a pipe")
    return containers_of(Home.default()).exec(
        name,
        tuple(argv),
        tty=tty,
        stdin=interactive,
        env=environment(env or []),
        user=user,
        workdir=workdir,
        detach=detach,
    )


@app.command()
def start(names: Names) -> None:
    """Start containers that have ended."""
    from mlbox.engine.running import containers_of
    from mlbox.paths import Home

    containers = containers_of(Home.default())
    for name in names:
        containers.start(name).close()
        print(name)


@app.command()
def stop(
    names: Names,
    timeout: Annotated[float | None, Option("--time", "-t", min=0, help="Seconds before SIGKILL.")] = None,
) -> None:
    """Ask containers to end, and make them after a while."""
    containers = _containers()
    for name in names:
        containers.stop(name, timeout)
        print(name)


@app.command()
def kill(names: Names, signal: Annotated[str, Option("--signal", "-s")] = "KILL") -> None:
    """Send containers a signal."""
    from mlbox.runtime.options import parse_signal

    number = parse_signal(signal)
    containers = _containers()
    for name in names:
        containers.kill(name, number)
        print(name)


@app.command()
def wait(names: Names) -> None:
    """Wait until containers end and print their exit codes."""
    containers = _containers()
    for name in names:
        print(containers.wait(name))


@app.command()
def rm(
    names: Names,
    force: Annotated[bool, Option("--force", "-f", help="Also when it runs: kill it first.")] = False,
) -> None:
    """Remove containers."""
    containers = _containers()
    for name in names:
        containers.remove(name, force=force)
        print(name)


def _image(one: "Container") -> str:
    return one.record.image.removeprefix("sha256:")[: 40 if ":" in one.record.image[7:] else 12]


def _status(one: "Container") -> str:
    state = one.state
    if state.exit_code is None:
        return state.status + (f" (until {_clock(state.until)})" if state.until and state.status == "running" else "")
    why = "out of memory, " if state.oom_killed else "its time was over, " if state.timed_out else ""
    return f"{state.status} ({why}{state.exit_code})"


def _clock(moment: str) -> str:
    """Return a time of the state for people, with the date when it is not today's."""
    then = datetime.fromisoformat(moment).astimezone()
    return f"{then:%H:%M}" if then.date() == datetime.now(then.tzinfo).date() else f"{then:%Y-%m-%d %H:%M}"


def _age(one: "Container") -> str:
    return ago(datetime.fromisoformat(one.record.created).timestamp())


def _moment(since: str) -> str:
    """Return the time that '10m', '2h' or an ISO time means, as the log writes times."""
    from mlbox.errors import UsageError
    from mlbox.runtime.record import timestamp

    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if not since:
        return ""
    if since[-1] in units and since[:-1].isdigit():
        return timestamp(time.time_ns() - int(since[:-1]) * units[since[-1]] * 10**9)
    try:
        return timestamp(int(datetime.fromisoformat(since).timestamp() * 10**9))
    except ValueError as problem:
        raise UsageError(f"not a time: {since!r}", hint="10m, 2h, or 2026-01-31T12:00:00") from problem
