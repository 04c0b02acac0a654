"""mlbox explain: why did it fail?"""

import sys
from typing import Annotated

from mlbox.cli.render import Format, print_json
from mlbox.cli.words import App, Argument, Option

app = App()


@app.command()
def explain(
    what: Annotated[
        str, Argument(metavar="CONTAINER|FILE|-", help="A container, a file with a program's output, or stdin.")
    ],
    form: Annotated[Format, Option("--format")] = Format.TABLE,
) -> int:
    """Say why a program failed, and what mends it on this host. The exit code is 1 when it is nothing that is known."""
    from pathlib import Path

    from mlbox.engine.explaining import end_of, explain_container, explain_output, output_of
    from mlbox.engine.running import containers_of
    from mlbox.errors import NotFoundError
    from mlbox.paths import Home

    containers = containers_of(Home.default())
    if what == "-":
        found = explain_output(containers, end_of(sys.stdin.buffer))
    else:
        try:
            found = explain_container(containers, what)
        except NotFoundError:
            found = explain_output(containers, output_of(Path(what)))
    if form is Format.JSON:
        print_json(found)
    elif found is None:
        print("nothing in its last output is a failure that is known", file=sys.stderr)
    else:
        if found.line:
            print(f"said: {found.line}")
        print(f"why:  {found.cause}")
        print(f"fix:  {found.fix}")
    return int(found is None)
