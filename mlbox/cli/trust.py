"""Commands about what images are made of and who vouches for them: sbom, provenance, key, sign, signatures."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbox.cli.home import default_store, meant
from mlbox.cli.render import Format, print_json
from mlbox.engine.trust.materials import BillFormat

if TYPE_CHECKING:
    from mlbox.trust.keys import PrivateKey

app = typer.Typer(rich_markup_mode=None)
keys = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Make keys that sign images.")
app.add_typer(keys, name="key")

Name = Annotated[str, typer.Argument(metavar="IMAGE", help="An image of the store, else one in a registry.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")]
SignedBy = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Only what the owner of this public key has signed about the image."),
]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the key's password from the first line.")]

PASSWORD = "MLBOX_KEY_PASSWORD"  # noqa: S105 - the name of a variable


@app.command()
def sbom(
    name: Name,
    form: Annotated[BillFormat, typer.Option("--format")] = BillFormat.CYCLONEDX,
    key: SignedBy = None,
    output: Output = None,
) -> None:
    """Print the software bill of materials of an image: every package with version, hash, licence and what needs it.

    It is made from the files of an image of the store; of one in a registry it is what was attached there.
    """
    from mlbox.cli.progress import listener
    from mlbox.engine.trust import materials
    from mlbox.paths import Home

    name = meant(default_store(), name)
    if key is None:
        with listener() as talk:
            data = materials.sbom(Home.default(), name, form, listener=talk)
        _write(data, output)
    else:
        _write(_attested(name, materials.predicate_of(form), key), output)


@app.command()
def provenance(name: Name, key: SignedBy = None, output: Output = None) -> None:
    """Print what an image was built from: an in-toto statement with SLSA provenance."""
    from mlbox.engine.trust import materials
    from mlbox.paths import Home
    from mlbox.trust.provenance import PREDICATE

    name = meant(default_store(), name)
    if key is None:
        _write(materials.provenance(Home.default(), name), output)
    else:
        _write(_attested(name, PREDICATE, key), output)


@app.command()
def sign(
    name: Name,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="The private key; 'mlbox key generate' makes one.")
    ],
    sbom: Annotated[bool, typer.Option("--sbom", help="Attach a signed bill of materials.")] = False,
    provenance: Annotated[bool, typer.Option("--provenance", help="Attach signed provenance.")] = False,
    push: Annotated[
        bool, typer.Option("--push", help="Send the signatures to the registries that the image is known to be in.")
    ] = False,
    password_stdin: FromStdin = False,
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
) -> None:
    """Sign an image so that cosign and the policies of other machines know it.

    An image of the store is signed under every digest it is known by; 'mlbox push --sign' signs what it sends. A name
    that only a registry has is signed there.
    """
    from mlbox.cli.progress import listener
    from mlbox.engine.trust import signing
    from mlbox.paths import Home

    private = load_key(key, from_stdin=password_stdin)
    with listener() as talk:
        report = signing.sign(Home.default(), name, private, sbom=sbom, provenance=provenance, push=push, listener=talk)
    if form is Format.JSON:
        print_json(report)
        return
    for signed in report.signed:
        state = "signed" if signed.new else "was signed"
        print(f"{state} {signed.repository}@{signed.digest}{', pushed' if signed.pushed else ''}")


@app.command()
def signatures(
    name: Name,
    key: Annotated[
        list[Path] | None, typer.Option("--key", metavar="FILE", help="A public key; one of them must have signed.")
    ] = None,
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
) -> None:
    """Show who signed an image; with --key fail unless one of the keys' owners did."""
    from mlbox.cli.progress import listener
    from mlbox.cli.render import print_table
    from mlbox.engine.trust import signing
    from mlbox.paths import Home
    from mlbox.trust.keys import load_public

    keys = [load_public(path) for path in key or ()]
    name = meant(default_store(), name)
    with listener() as talk:
        report = signing.verify(Home.default(), name, keys, listener=talk)
    if form is Format.JSON:
        print_json(report)
    else:
        rows = [(one.repository, one.digest, str(one.signatures), ", ".join(one.keys)) for one in report.manifests]
        print_table(("REPOSITORY", "MANIFEST", "SIGNATURES", "SIGNED WITH"), rows)
    if keys:
        signing.require(report, keys)


@keys.command()
def generate(
    prefix: Annotated[Path, typer.Argument(metavar="PREFIX", help="PREFIX.key and PREFIX.pub are written.")] = Path(
        "mlbox"
    ),
    password_stdin: FromStdin = False,
) -> None:
    """Make a key pair for signing: PREFIX.key, encrypted and for you only, and PREFIX.pub for everybody."""
    from mlbox.trust.keys import generate as make

    for path in make(prefix, password(from_stdin=password_stdin, twice=True)):
        print(path)


@keys.command()
def public(
    key: Annotated[Path, typer.Argument(metavar="FILE", help="A private key.")], password_stdin: FromStdin = False
) -> None:
    """Print the public key of a private one."""
    sys.stdout.write(load_key(key, from_stdin=password_stdin).public.pem.decode())


def load_key(path: Path, *, from_stdin: bool = False) -> "PrivateKey":
    """Return the private key of a file; its password is asked for when it has one."""
    from mlbox.trust.keys import load_private

    return load_private(path, lambda: password(from_stdin=from_stdin))


def password(*, from_stdin: bool = False, twice: bool = False) -> bytes:
    """Return the password of a key: from stdin, from MLBOX_KEY_PASSWORD, or from the terminal."""
    from mlbox.errors import UsageError

    if from_stdin:
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    if (given := os.environb.get(PASSWORD.encode())) is not None:
        return given
    if not sys.stdin.isatty():
        raise UsageError(
            "the key needs a password, and nobody is there to ask", hint=f"set {PASSWORD}, or --password-stdin"
        )
    from getpass import getpass

    typed = getpass("password of the key: ")
    if twice and getpass("again: ") != typed:
        raise UsageError("the two passwords differ")
    return typed.encode()


def _attested(name: str, predicate: str, key: Path) -> bytes:
    from mlbox.engine.trust.attested import attested
    from mlbox.paths import Home
    from mlbox.trust.keys import load_public

    return attested(Home.default(), name, predicate, [load_public(key)])


def _write(data: bytes, output: Path | None) -> None:
    from mlbox.files import write_output

    if output is None:
        sys.stdout.buffer.write(data)
    else:
        write_output(output, data)
