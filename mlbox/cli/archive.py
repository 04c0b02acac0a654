"""Commands that bring images to other machines without a registry: save, load, serve-store."""

import contextlib
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mlbox.cli.home import default_store
from mlbox.cli.words import App, Argument, Option

if TYPE_CHECKING:
    from mlbox.store.layout import Chosen
    from mlbox.store.store import Store

app = App()


class ArchiveForm(StrEnum):
    """What `save` writes."""

    OCI = "oci"
    DOCKER = "docker"


@app.command()
def save(
    names: Annotated[list[str], Argument(metavar="IMAGE...", help="Names, digests, or beginnings of digests.")],
    output: Annotated[
        str, Option("--output", "-o", help="A folder, FILE.tar, FILE.tar.gz, FILE.tar.zst, or - for stdout.")
    ],
    form: Annotated[
        ArchiveForm,
        Option(
            "--format", help="oci: a layout that skopeo, podman and umoci read; docker: an archive for 'docker load'."
        ),
    ] = ArchiveForm.OCI,
    attachments: Annotated[
        bool, Option("--attachments", help="With what is known about the images: locks, plans, signatures.")
    ] = False,
) -> None:
    """Write images to a folder or an archive; an image that is asked for by name gets this name there."""
    from mlbox.errors import UsageError
    from mlbox.files import output_errors
    from mlbox.store.layout import export, write_archive

    if attachments and form is ArchiveForm.DOCKER:
        raise UsageError("docker's archives cannot carry attachments", hint="leave out --format docker")
    store = default_store()
    with store.using():
        chosen = [_chosen(store, name) for name in names]
        if output != "-":
            export(store, chosen, Path(output).absolute(), form=form.value, attachments=attachments)
            for digest in dict.fromkeys(image.digest for image, _ in chosen):
                print(digest)
            return
        if sys.stdout.isatty():
            raise UsageError(
                "an archive does not belong on a terminal", hint="name a file with -o, or pipe it somewhere"
            )
        with output_errors(Path("standard output")):
            write_archive(store, chosen, sys.stdout.buffer, form=form.value, attachments=attachments)
            sys.stdout.buffer.flush()


def _chosen(store: "Store", text: str) -> "Chosen":
    """Return the image that `text` means, with that name, or all its names when `text` is a digest."""
    from mlbox.errors import UsageError
    from mlbox.oci.reference import parse_reference
    from mlbox.store.layout import Chosen

    image = store.images.load(store.images.resolve(text))
    names = store.images.names(image.digest)
    try:
        asked = parse_reference(text)
    except UsageError:  # 'sha256:...' is no name
        return Chosen(image, names)
    return Chosen(image, (asked,) if asked in names else names)


@app.command()
def load(
    source: Annotated[
        str, Option("--input", "-i", metavar="FILE|DIR", help="An archive or a layout; else stdin is read.")
    ] = "-",
    tag: Annotated[
        list[str] | None, Option("--tag", "-t", metavar="NAME", help="A name for the one image in it.")
    ] = None,
    arch: Annotated[
        str, Option("--arch", metavar="ARCH", help="Which of several: amd64, arm64; else this machine's.")
    ] = "",
) -> None:
    """Take images from an archive of mlbox, skopeo, podman, buildkit or docker, or from an OCI layout."""
    from functools import partial

    from mlbox.cli.progress import listener
    from mlbox.engine.arch import host_arch
    from mlbox.engine.trust.admission import admit_load
    from mlbox.errors import UsageError
    from mlbox.oci.reference import parse_reference
    from mlbox.registry.archive import load_images

    if source == "-" and sys.stdin.isatty():
        raise UsageError("an archive does not come from a terminal", hint="name it with -i, or pipe it in")
    names = [parse_reference(name) for name in tag or []]
    with listener() as talk:
        found = sys.stdin.buffer if source == "-" else Path(source)
        store = default_store()
        admit = partial(admit_load, store)
        loaded = load_images(store, found, arch=arch or host_arch(), names=names, admit=admit, listener=talk)
    for digest, given in loaded:
        for name in given:
            print(f"loaded {name.familiar} {digest}")
        if not given:
            print(f"loaded {digest}")


@app.command("serve-store")
def serve_store(
    listen: Annotated[str, Option("--listen", metavar="ADDRESS[:PORT]", help="Where to listen.")] = "127.0.0.1:5000",
    token_file: Annotated[
        Path | None,
        Option(
            "--token-file", help="Clients must show the token in it; made when there is none. Else MLBOX_STORE_TOKEN."
        ),
    ] = None,
    cert: Annotated[Path | None, Option("--cert", help="TLS: the certificate and its chain, PEM.")] = None,
    key: Annotated[Path | None, Option("--key", help="TLS: the private key, PEM.")] = None,
) -> None:
    """Let other machines pull the images of this store, with mlbox, podman, docker or skopeo; until Ctrl-C."""
    from mlbox.registry.access import options_of
    from mlbox.registry.server import serve

    options = options_of(listen, token_file=token_file, cert=cert, key=key, environment=os.environ)
    serve(default_store(), options, _say)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read the log went away; the store is served on
        print(line, file=sys.stderr, flush=True)
