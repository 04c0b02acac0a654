"""Runs inside the build container: calls the build_wheel hook of a source tree's back end (PEP 517).

Standard library only, nothing of mlbox: the file itself is what the container sees.
"""

import importlib
import json
import os
import sys
from functools import reduce


def main(spec: str, output: str) -> None:
    """Build the wheel of the tree in the working directory into `output`; `spec` is {'backend', 'path'} in JSON."""
    wanted = json.loads(spec)
    sys.path[:0] = [os.path.abspath(path) for path in wanted["path"]]  # noqa: PTH100
    module, _, attribute = wanted["backend"].partition(":")
    backend = reduce(getattr, filter(None, attribute.split(".")), importlib.import_module(module))
    sys.argv[1:] = []  # old setup.py files read the command line
    backend.build_wheel(output)


if __name__ == "__main__":
    main(*sys.argv[1:3])
