"""Commands on images: images, rmi, tag, history, inspect."""

from typing import Annotated

from mlbox.cli.home import ImageName, default_store, meant
from mlbox.cli.render import Format, ago, mega, print_json, print_table
from mlbox.cli.words import App, Argument, Option

app = App()

Form = Annotated[Format, Option("--format")]


@app.command()
def images(
    form: Form = Format.TABLE,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only digests.")] = False,
) -> None:
    """List the images of the store."""
    rows = default_store().images.list()
    if quiet:
        for row in rows:
            print(row.digest)
    elif form is Format.JSON:
        print_json(rows)
    else:
        table = [
            (name, row.digest[7:19], str(row.layers), mega(row.size), ago(row.created))
            for row in rows
            for name in (row.names or ("<none>",))
        ]
        print_table(("IMAGE", "DIGEST", "LAYERS", "SIZE", "BUILT"), table)


@app.command()
def tag(source: ImageName, target: Annotated[str, Argument(metavar="NAME")]) -> None:
    """Give an image another name."""
    from mlbox.oci.reference import parse_reference

    store = default_store()
    store.images.tag(store.images.resolve(source), parse_reference(target))


@app.command()
def rmi(
    names: Annotated[list[str], Argument(metavar="IMAGE...")],
    force: Annotated[bool, Option("--force", "-f", help="Also when stopped containers use it.")] = False,
) -> None:
    """Remove names, and images that have none left. Their layers go with 'mlbox prune'."""
    from mlbox.engine.running import used_images
    from mlbox.runtime.containers import Containers

    store = default_store()
    used = used_images(Containers(store.home))
    for name in names:
        removed = store.images.untag(name, used_by=used, force=force)
        for untagged in removed.names:
            print(f"untagged {untagged}")
        if removed.digest:
            print(f"removed {removed.digest}")


@app.command()
def history(name: ImageName, form: Form = Format.TABLE) -> None:
    """Show the layers of an image, the last one first, and how each came about."""
    store = default_store()
    image = store.images.load(store.images.resolve(meant(store, name)))
    entries = (entry for entry in image.config.history if not entry.empty_layer)
    layers = []
    for layer in image.manifest.layers:  # its digest is the diffID
        entry = next(entries, None)  # some tools write no history, or too little
        created_by, comment = (entry.created_by, entry.comment) if entry else ("", "")
        layers.append({"diff_id": layer.digest, "size": layer.size, "created_by": created_by, "comment": comment})
    if form is Format.JSON:
        print_json(layers)
        return
    rows = [
        (str(layer["diff_id"])[7:19], mega(int(str(layer["size"]))), str(layer["created_by"]), str(layer["comment"]))
        for layer in reversed(layers)
    ]
    print_table(("LAYER", "SIZE", "CREATED BY", "COMMENT"), rows)


@app.command()
def inspect(
    names: Annotated[list[str], Argument(metavar="NAME...", help="Images or containers.")],
) -> None:
    """Print everything known about images or containers, as JSON."""
    from mlbox.engine.checking import facts_of
    from mlbox.engine.linking import findings_of
    from mlbox.errors import NotFoundError
    from mlbox.runtime.containers import Containers

    store = default_store()
    containers = Containers(store.home)
    found: list[object] = []
    for name in names:
        try:
            found.append(containers.get(name))
        except NotFoundError:
            image = store.images.load(store.images.resolve(meant(store, name)))
            found.append(
                {
                    "digest": image.digest,
                    "names": [reference.familiar for reference in store.images.names(image.digest)],
                    "manifest": image.manifest,
                    "config": image.config,
                    "libraries": findings_of(store, image.digest),
                    "gpu": facts_of(store, image.digest),
                }
            )
    print_json(found)
