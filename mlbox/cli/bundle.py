"""Commands on bundles, one file for a place without a network: bundle, bundle have, bundle verify, bundle load."""

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer._click import Context
from typer.core import TyperGroup

from mlbox.cli.home import default_store
from mlbox.cli.progress import listener
from mlbox.cli.render import Format, mega, print_json, print_table
from mlbox.events import Listener
from mlbox.units import many

if TYPE_CHECKING:
    from mlbox.engine.bundles.load import Checked
    from mlbox.engine.bundles.write import Bundled
    from mlbox.oci.digest import Digest
    from mlbox.registry.bundle import Contents
    from mlbox.registry.bundle_have import Have

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_LEAST_PART = 10**6


class Method(StrEnum):
    """How layers are compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"


class _Verbs(TyperGroup):
    """What is no verb is an image to bundle; one that is called 'load' is 'load:latest', or its digest."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put the verb there that goes without saying."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(rich_markup_mode=None)
verbs = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    subcommand_metavar="IMAGE... -o FILE | VERB",
    help="Put images into one file for a place without a network, with what it takes to check and rebuild them there.",
)
app.add_typer(verbs, name="bundle")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A bundle; of one in parts, its name without .001.")]
Form = Annotated[Format, typer.Option("--format")]


@verbs.command()
def create(
    names: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Names, digests, or beginnings of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; '-' is standard output.")],
    since: Annotated[
        list[Path] | None, typer.Option("--since", metavar="BUNDLE", help="Leave out what this bundle brought.")
    ] = None,
    have: Annotated[
        list[Path] | None, typer.Option("--have", metavar="LIST", help="Leave out what 'bundle have' listed there.")
    ] = None,
    artifacts: Annotated[
        bool | None,
        typer.Option(
            "--artifacts/--no-artifacts",
            help="Wheels, .debs and sdists, to build again from: all, or none. Else those that are here.",
        ),
    ] = None,
    sbom: Annotated[bool, typer.Option("--sbom", help="Write a bill of materials of each image first.")] = False,
    split: Annotated[
        str, typer.Option("--split", metavar="SIZE", help="Write FILE.001, FILE.002, … of at most 4G, 700M, …")
    ] = "",
    compression: Annotated[Method, typer.Option(help="Of the layers; older programs read only gzip.")] = Method.ZSTD,
    form: Form = Format.TABLE,
) -> None:
    """Put images into one file. This is what 'mlbox bundle IMAGE' does."""
    from mlbox.engine.bundles.write import BundleOptions, left_out, make_bundle
    from mlbox.files import output_errors
    from mlbox.registry.bundle_write import bundle_file

    size = _size(split)
    if str(output) == "-":
        _refuse_terminal(split)
    with listener() as talk:
        there, bundles = _there(since or [], have or [])
        options = BundleOptions(
            artifacts=artifacts, sbom=sbom, have=there, since=bundles, compression=compression.value
        )
        if str(output) == "-":
            with output_errors(Path("standard output")):
                made = make_bundle(default_store(), names, sys.stdout.buffer, options, talk)
                sys.stdout.buffer.flush()
        else:
            with bundle_file(output.absolute(), size) as out:
                made = make_bundle(default_store(), names, out, options, talk)
        for line in left_out(made.contents):
            talk.note(line)
    if str(output) != "-":
        _print_made(made, output, form)


@verbs.command("have")
def have_(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
) -> None:
    """List what this store has, for 'bundle --have' on the machine that makes the bundle."""
    from mlbox.files import write_output
    from mlbox.registry.bundle_have import have_of, render_have

    text = render_have(have_of(default_store()))
    if output is None:
        sys.stdout.write(text)
    else:
        write_output(output, text.encode())


@verbs.command()
def verify(
    file: File,
    key: Annotated[
        list[Path] | None, typer.Option("--key", metavar="PUB", help="Each image must be signed with one of these.")
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Check every byte of a bundle and say what is in it; nothing is written, no network is used."""
    from mlbox.engine.bundles.load import verify_bundle

    keys = []
    for path in key or []:
        from mlbox.trust.keys import load_public

        keys.append(load_public(path))
    with listener() as talk:
        checked = verify_bundle(default_store(), file, talk, keys=keys)
    if form is Format.JSON:
        print_json(_document(checked.contents, checked.digest, checked.size) | {"missing": checked.missing})
        return
    _print_images(checked.contents)
    _tell(checked)
    if key:
        print(f"every image is signed with {' or '.join(str(path) for path in key)}")


@verbs.command()
def load(
    file: File,
    trust: Annotated[
        bool, typer.Option("--trust", help="Builds take its built wheels and layers of commands as they are.")
    ] = False,
    form: Form = Format.TABLE,
) -> None:
    """Bring the images of a bundle into the store; no network is used. FILE may be '-', standard input."""
    from mlbox.engine.bundles.load import load_bundle, load_stream

    with listener() as talk:
        if str(file) == "-":
            loaded = load_stream(default_store(), sys.stdin.buffer, talk, trust=trust)
        else:
            loaded = load_bundle(default_store(), file, talk, trust=trust)
        _tell_moved(talk, [(name.name, name.before) for image in loaded.images for name in image.names if name.before])
        talk.note(
            f"layers: {len(loaded.unpacked)} from the bundle, {len(loaded.made)} made from files of packages, "
            f"{len(loaded.there)} that were there; {many(loaded.files, 'file')} of packages from the bundle"
        )
        if loaded.ran:
            how = "takes" if trust else "makes again, unless they are loaded with --trust"
            talk.note(f"made in containers, and 'mlbox build' {how}: {', '.join(loaded.ran)}")
    if form is Format.JSON:
        print_json(loaded)
        return
    for image in loaded.images:
        print(" ".join((image.digest, *(name.name for name in image.names))))


def _there(since: list[Path], have: list[Path]) -> "tuple[Have, tuple[Digest, ...]]":
    """Return what the receiving store has, and the bundles that say so."""
    from mlbox.registry.bundle_have import NOTHING, given_by, read_have
    from mlbox.registry.bundle_read import open_bundle

    there, digests = NOTHING, []
    for path in have:
        there = there | read_have(path)
    for path in since:
        with open_bundle(path) as bundle:
            there = there | given_by(bundle.contents)
            digests.append(bundle.digest)
    return there, tuple(digests)


def _refuse_terminal(split: str) -> None:
    from mlbox.errors import UsageError

    if split:
        raise UsageError("--split needs files to write to", hint="-o FILE")
    if sys.stdout.isatty():
        raise UsageError("a bundle is nothing to read on a terminal", hint="-o FILE, or pipe it somewhere")


def _size(text: str) -> int | None:
    from mlbox.errors import UsageError

    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,12})([kmg]?)b?", text.lower(), re.ASCII)
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if size < _LEAST_PART:
        raise UsageError(f"--split {text}: not a size of at least 1M", hint="--split 4G fits on FAT32")
    return size


def _document(contents: "Contents", digest: str, size: int) -> dict[str, object]:
    return {"digest": digest, "size": size, "delta": contents.is_delta, "contents": contents}


def _print_made(made: "Bundled", output: Path, form: Format) -> None:
    if form is Format.JSON:
        print_json(_document(made.contents, made.digest, made.size))
        return
    _print_images(made.contents)
    print(f"{output}: {mega(made.size)}, bundle {made.digest}")


def _print_images(contents: "Contents") -> None:
    from mlbox.oci.reference import parse_reference

    names = [(image, [parse_reference(name).familiar for name in image.names]) for image in contents.images]
    print_table(("IMAGE", "DIGEST"), [(name, image.digest) for image, found in names for name in found or ["<none>"]])


def _tell(checked: "Checked") -> None:
    contents = checked.contents
    files = [file.size for file in contents.files if not file.there]
    print(
        f"undamaged: {mega(checked.size)}, {many(sum(layer.way == 'blob' for layer in contents.layers), 'layer')}, "
        f"{many(len(files), 'file')} of packages ({mega(sum(files))}), "
        f"{many(len(contents.referrers), 'document')} about the images; "
        f"bundle {checked.digest}"
    )
    if checked.missing:
        print(f"a delta, which this store cannot load: it lacks {checked.missing}")
    elif contents.is_delta:
        print("a delta: what it leaves out is in this store")


def _tell_moved(talk: Listener, moved: list[tuple[str, str | None]]) -> None:
    for name, before in moved:
        talk.note(f"{name} was {before}")
