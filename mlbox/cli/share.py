"""Commands on registries: pull, push, copy."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from mlbox.cli.progress import listener
from mlbox.cli.project import Machine, Quiet
from mlbox.cli.render import Format, mega, print_json
from mlbox.cli.words import App, Argument, Option
from mlbox.units import many

app = App()

Names = Annotated[list[str], Argument(metavar="NAME...", help="Like ghcr.io/team/bert:1.")]
Arch = Annotated[Machine | None, Option("--arch", help="This machine's when nothing says.")]
Form = Annotated[Format, Option("--format", help="json: a report on every layer.")]


class Method(StrEnum):
    """How layers are compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"


@app.command()
def pull(names: Names, arch: Arch = None, quiet: Quiet = False, form: Form = Format.TABLE) -> None:
    """Get images from a registry; prints the digest each has here, as 'build' does."""
    from mlbox.engine import sharing
    from mlbox.paths import Home

    reports = []
    with listener(quiet=quiet) as talk:
        for name in names:
            report = sharing.pull(Home.default(), name, arch=arch.value if arch else "", listener=talk)
            reports.append(report)
            counts = dict.fromkeys(("registry", "artifacts", "pieces", "here"), 0)
            for layer in report.layers:
                counts[layer.source] += 1
            talk.step(f"{report.name}: {many(len(report.layers), 'layer')}, {_of(counts)}; {mega(report.moved)} moved")
            if form is not Format.JSON:
                print(report.image)
    if form is Format.JSON:
        print_json(reports)


@app.command()
def push(
    names: Names,
    to: Annotated[str, Option("--to", metavar="NAME", help="Another name than it has here.")] = "",
    compression: Annotated[
        Method | None,
        Option(help="zstd unless the registry has the layer in another form; gzip for old clients."),
    ] = None,
    thin: Annotated[
        bool, Option("--thin", help="Without what mlbox can make again from the index and the mirror.")
    ] = False,
    sign: Annotated[
        Path | None, Option("--sign", metavar="KEY", help="Sign with a private key, as 'mlbox sign' does.")
    ] = None,
    sbom: Annotated[bool, Option("--sbom", help="Attach a bill of materials.")] = False,
    provenance: Annotated[bool, Option("--provenance", help="Attach what it was built from.")] = False,
    quiet: Quiet = False,
    form: Form = Format.TABLE,
) -> None:
    """Send images to the registry their names say; prints NAME@DIGEST of each."""
    from mlbox.cli.trust import load_key
    from mlbox.engine import sharing
    from mlbox.engine.trust.signing import Publication
    from mlbox.errors import UsageError
    from mlbox.paths import Home

    if to and len(names) > 1:
        raise UsageError("--to is one name, for one image", hint="push one after the other")
    also = Publication(sbom=sbom, provenance=provenance, key=load_key(sign) if sign else None)
    reports = []
    with listener(quiet=quiet) as talk:
        for name in names:
            report = sharing.push(
                Home.default(),
                name,
                to=to,
                compression=compression.value if compression else None,
                thin=thin,
                also=also,
                listener=talk,
            )
            reports.append(report)
            counts = dict.fromkeys(("uploaded", "mounted", "there"), 0)
            for layer in report.layers:
                counts[layer.how] += 1
            left = f", {len(report.left_out)} left out" if report.left_out else ""
            layers = f"{many(len(report.layers), 'layer')}, {_of(counts)}{left}"
            talk.step(f"{report.name}: {layers}; {mega(report.moved)} moved")
            if form is not Format.JSON:
                print(report.pinned)
    if form is Format.JSON:
        print_json(reports)


@app.command()
def copy(
    source: Annotated[str, Argument(metavar="SOURCE")],
    target: Annotated[str, Argument(metavar="TARGET")],
    arch: Annotated[Machine | None, Option("--arch", help="Only this one's image; else all.")] = None,
    referrers: Annotated[bool, Option(help="Also signatures, locks and other artifacts about it.")] = True,
    quiet: Quiet = False,
    form: Form = Format.TABLE,
) -> None:
    """Copy an image from registry to registry as it is, all architectures; prints its digest."""
    from mlbox.engine import sharing
    from mlbox.paths import Home

    with listener(quiet=quiet) as talk:
        report = sharing.copy(
            Home.default(),
            source,
            target,
            arch=arch.value if arch else "",
            referrers=referrers,
            listener=talk,
        )
        counts = {"uploaded": report.uploaded, "mounted": report.mounted, "there": report.there}
        talk.step(f"{target}: {many(report.manifests, 'manifest')}, blobs: {_of(counts)}; {mega(report.moved)} moved")
    if form is Format.JSON:
        print_json(report)
    else:
        print(report.digest)


def _of(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items() if number) or "none"
