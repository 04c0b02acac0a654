"""Commands on the store and the host: df, prune, fsck, doctor, version."""

from typing import Annotated, Literal

import typer

from mlbox.cli.home import default_store
from mlbox.cli.render import Format, mega, print_json, print_table

app = typer.Typer(rich_markup_mode=None)


@app.command()
def df(form: Annotated[Format, typer.Option("--format")] = Format.TABLE) -> None:
    """Show the room the store takes."""
    from mlbox.store.gc import df as usage

    rows = usage(default_store())
    if form is Format.JSON:
        print_json(rows)
        return
    print_table(("KIND", "COUNT", "SIZE"), [(row.kind, str(row.count), mega(row.size)) for row in rows])


@app.command()
def prune(
    built: Annotated[bool, typer.Option("--built", help="Forget everything that was built; downloads stay.")] = False,
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Forget the downloads instead.")] = False,
    yes: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Remove what no image or container uses."""
    from mlbox.engine.running import used_images, used_layers
    from mlbox.errors import UsageError
    from mlbox.runtime.containers import Containers
    from mlbox.store import gc

    if built and artifacts:
        raise UsageError("--built and --artifacts are two different things", hint="run prune twice")
    what: Literal["built", "artifacts", "unused"] = "built" if built else "artifacts" if artifacts else "unused"
    going = {
        "built": "every image no container uses, all layers and pieces",
        "artifacts": "all downloaded files",
        "unused": "images without a name, layers and pieces no image uses",
    }[what]
    if not yes:
        typer.confirm(f"Remove {going}?", abort=True, err=True)
    store = default_store()
    containers = Containers(store.home)
    gone = gc.prune(store, what, used_digests=set(used_images(containers)), used_layers=used_layers(store, containers))
    print(
        f"removed {gone.images} images, {gone.layers} layers, {gone.pieces} pieces, {gone.artifacts} downloads: "
        f"{mega(gone.size)}"
    )


@app.command()
def fsck(
    deep: Annotated[bool, typer.Option("--deep", help="Hash every file again.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged.")] = False,
) -> int:
    """Check the store; exit code 1 when something is wrong and was not repaired."""
    from mlbox.engine.running import used_layers
    from mlbox.runtime.containers import Containers
    from mlbox.store.fsck import fsck as check

    store = default_store()
    containers = Containers(store.home)
    for dead in containers.reconcile():
        print(f"cleaned up after container {dead.name}, whose monitor was killed")
    report = check(store, deep=deep, repair=repair, used_layers=used_layers(store, containers))
    for leftover in report.leftovers:
        print(f"removed unfinished {leftover}")
    for finding in report.findings:
        done = "set aside" if finding.kind == "database" else "removed"
        print(f"{finding.kind} {finding.what}: {finding.problem}{f' ({done})' if finding.repaired else ''}")
    print("clean" if report.clean else f"{len(report.findings)} problems")
    return int(any(not finding.repaired for finding in report.findings))


@app.command()
def doctor(form: Annotated[Format, typer.Option("--format")] = Format.TABLE) -> int:
    """Say what of this host keeps mlbox from working, and what mends it."""
    from mlbox.engine.doctor import examine
    from mlbox.paths import Home

    findings = examine(Home.default())
    if form is Format.JSON:
        print_json(findings)
    else:
        for finding in findings:
            print(f"{finding.verdict:<5} {finding.subject}: {finding.text}")
            if finding.hint:
                print(f"      hint: {finding.hint}")
    return int(any(finding.verdict == "bad" for finding in findings))


@app.command()
def version() -> None:
    """Print the version."""
    from mlbox import __version__

    print(f"mlbox {__version__}")
