"""The command that writes a lock in the formats of other tools."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from mlbox.cli.words import App, Argument, Option

app = App()


class ExportFormat(StrEnum):
    """What a lock can be written as."""

    PYLOCK = "pylock"
    REQUIREMENTS = "requirements"
    CONDA_LOCK = "conda-lock"
    ENVIRONMENT = "environment.yml"
    DOCKERFILE = "dockerfile"
    SBOM = "sbom"
    SPDX = "spdx"


@app.command()
def export(
    form: Annotated[ExportFormat, Option("--format", help="sbom is CycloneDX.")],
    what: Annotated[str, Argument(metavar="[IMAGE|LOCK|FOLDER]", help="An image, a lock, or a project.")] = ".",
    output: Annotated[Path | None, Option("--output", "-o", metavar="FILE", help="Instead of stdout.")] = None,
    wheels: Annotated[
        Path | None, Option(metavar="FOLDER", help="Gets the Python packages' files; pylock names them there.")
    ] = None,
    urls: Annotated[bool, Option("--urls", help="In pylock: where your indexes have the files.")] = False,
    accelerator: Annotated[str, Option(help="Which of the lock's; default: its first.")] = "",
    extra: Annotated[list[str] | None, Option("--extra", help="As the lock was made with.")] = None,
    group: Annotated[list[str] | None, Option("--group", help="As the lock was made with.")] = None,
    source: Annotated[str, Option("--from", metavar="FILE", help="As the lock was made with.")] = "",
) -> None:
    """Write a lock for other tools; a Dockerfile comes with its .dockerignore when it is written to a file."""
    from mlbox.cli.progress import listener
    from mlbox.engine.exporting import ExportOptions
    from mlbox.engine.exporting import export as exported
    from mlbox.files import write_output
    from mlbox.paths import Home

    options = ExportOptions(
        what=what,
        form=form.value,
        output=output,
        wheels=wheels,
        urls=urls,
        accelerator=accelerator,
        extras=tuple(extra or ()),
        groups=tuple(group or ()),
        requirements=(source,) if source else (),
    )
    with listener() as talk:
        found = exported(Home.default(), options, talk)
    if output is None:
        sys.stdout.buffer.write(found.data)
        return
    write_output(output, found.data)
    if output.is_file():
        for suffix, data in found.beside.items():
            write_output(output.with_name(output.name + suffix), data)
