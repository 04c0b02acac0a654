"""Commands on registries: login, logout, tags."""

import sys
from typing import Annotated

import typer

from mlbox.cli.render import Format, print_json

app = typer.Typer(rich_markup_mode=None)

Host = Annotated[
    str, typer.Argument(metavar="[REGISTRY]", help="Like ghcr.io, registry.example:5000, or quay.io/team for a part.")
]
_LONGEST = 1 << 16


@app.command()
def login(
    host: Host = "docker.io",
    username: Annotated[str, typer.Option("--username", "-u", help="Else it is asked for.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password or access token from stdin.")
    ] = False,
    password: Annotated[str | None, typer.Option("--password", "-p", hidden=True)] = None,
) -> None:
    """Keep the password of a registry, where Docker and podman look for it too."""
    from mlbox.errors import UsageError
    from mlbox.registry.credentials import Credentials
    from mlbox.registry.hosts import parse_place
    from mlbox.registry.login import log_in

    if password is not None:
        raise UsageError(
            "a password on the command line can be read by everybody on this machine",
            hint=f"mlbox login {host} --username {username or 'NAME'} --password-stdin < FILE",
        )
    parse_place(host)
    user = username or _asked("Username", secret=False)
    if not user or ":" in user:
        raise UsageError("a user name is not empty and holds no ':'")
    secret = _from_stdin() if password_stdin else _asked("Password", secret=True)
    if not secret:
        raise UsageError("the password is empty")
    done = log_in(host, Credentials(username=user, password=secret))
    if not done.checked:
        print(f"note: {done.registry} lets everybody in: the password was not checked", file=sys.stderr)
    print(f"logged in to {done.registry}; the password is kept in {done.place}")


@app.command()
def logout(host: Host = "docker.io") -> None:
    """Forget the password of a registry."""
    from mlbox.registry.login import log_out

    places = log_out(host)
    if not places:
        print(f"not logged in to {host}", file=sys.stderr)
    for place in places:
        print(f"removed the login to {host} from {place}")


@app.command()
def tags(
    name: Annotated[str, typer.Argument(metavar="REPOSITORY", help="As in registry.example/team/bert.")],
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
) -> None:
    """List the tags of a repository in a registry."""
    from mlbox.oci.reference import parse_reference
    from mlbox.registry.client import open_registry

    reference = parse_reference(name)
    found = open_registry(reference.registry).tags(reference.repository)
    if form is Format.JSON:
        print_json(list(found))
        return
    for tag in found:
        print(tag)


def _asked(what: str, *, secret: bool) -> str:
    """Ask on the terminal, without echo for a secret."""
    from mlbox.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(f"{what.lower()} needed, and no terminal to ask on", hint="--username NAME --password-stdin")
    return str(typer.prompt(what, hide_input=secret, err=True))


def _from_stdin() -> str:
    from mlbox.errors import UsageError

    data = sys.stdin.buffer.read(_LONGEST + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError("the password on stdin is not UTF-8 text") from None
    if len(data) > _LONGEST:
        raise UsageError("the password on stdin is too long to be one")
    return text.rstrip("\r\n")
