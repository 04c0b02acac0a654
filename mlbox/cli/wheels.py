"""mlbox cache: wheels that were built from source, in this store and in registries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbox.cli.render import Format, mega, print_json, print_table

if TYPE_CHECKING:
    from mlbox.engine.wheels import Shared
    from mlbox.events import Listener
    from mlbox.plan.model import BuildPlan

app = typer.Typer(rich_markup_mode=None)
cache = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Share wheels that were built from source.")
app.add_typer(cache, name="cache")

Repository = Annotated[str, typer.Argument(metavar="REPO", help="Like registry.example/team/wheels.")]
Folder = Annotated[Path, typer.Option("-C", "--project", help="The project whose lock says what is needed.")]
All = Annotated[bool, typer.Option("--all", help="Every wheel there is, not only what the project's lock needs.")]
Form = Annotated[Format, typer.Option("--format")]
_WORDS = {
    "sent": "sent",
    "there": "is there",
    "other there": "is there, but differs: two builds of the same made different wheels; that one stays",
    "not built": "not built yet: 'mlbox build' first",
    "fetched": "fetched; the next build takes it",
    "here": "is here",
    "other here": "is here, but differs: two builds of the same made different wheels; this one stays",
    "not there": "not there: a build makes it",
}


@cache.command()
def push(name: Repository, folder: Folder = Path(), every: All = False, form: Form = Format.TABLE) -> None:
    """Send built wheels to a registry, so that others need not build them."""
    from mlbox.cli.home import default_store
    from mlbox.cli.progress import listener
    from mlbox.engine import wheels

    with listener() as talk:
        done = wheels.push(default_store(), None if every else _plan(folder, talk), name, talk)
    _print(done, form)


@cache.command()
def pull(name: Repository, folder: Folder = Path(), every: All = False, form: Form = Format.TABLE) -> None:
    """Fetch built wheels from a registry; builds then take them. Whoever may push there is trusted with what they hold.

    'mlbox build --rebuild PKG' builds one here all the same and compares.
    """
    from mlbox.cli.home import default_store
    from mlbox.cli.progress import listener
    from mlbox.engine import wheels

    with listener() as talk:
        done = wheels.pull(default_store(), None if every else _plan(folder, talk), name, talk)
    _print(done, form)


@cache.command("ls")
def ls(
    name: Annotated[str, typer.Argument(metavar="[REPO]", help="Of a registry; else of this store.")] = "",
    form: Form = Format.TABLE,
) -> None:
    """List built wheels: those of this store, or those in a registry."""
    from mlbox.cli.home import default_store
    from mlbox.cli.progress import listener
    from mlbox.engine import wheels

    with listener() as talk:
        found = wheels.remote(default_store(), name, talk) if name else wheels.local(default_store())
    if form is Format.JSON:
        print_json(found)
        return
    head = ("PACKAGE", "VERSION", "KEY", "SIZE", "SHA256", "HERE" if name else "FROM")
    rows = [
        (
            one.name,
            one.version,
            one.key[:12],
            mega(one.size),
            one.sha256.removeprefix("sha256:")[:12],
            _place(one, name),
        )
        for one in sorted(found, key=lambda one: (one.name, one.version, one.key))
    ]
    print_table(head, rows)


def _place(one: "Shared", name: str) -> str:
    if name:
        return "yes" if one.how == "here" else "-"
    return one.origin or "built here"


def _plan(folder: Path, talk: "Listener") -> "BuildPlan":
    from mlbox.engine.building import ProjectOptions, Workshop
    from mlbox.paths import Home

    workshop = Workshop(Home.default(), ProjectOptions(root=folder.absolute()), talk)
    return workshop.plan(workshop.chosen(workshop.ready_lock(relock=False, locked=True)))


def _print(done: "list[Shared]", form: Format) -> None:
    if form is Format.JSON:
        print_json(done)
        return
    for one in done:
        print(f"{one.name} {one.version}: {_WORDS[one.how]}")
    if not done:
        print("nothing is built from source")
