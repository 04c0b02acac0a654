"""Runs inside the build container: calls the build_wheel hook of a source tree's back end (PEP 517).

Standard library only, nothing of mlbox: the file itself is what the container sees.
"""

import importlib
import json
import os
import sys
from functools import reduce


def main(spec: str, output: str) -> None:
    """Build the wheel of the tree in the working directory into `output`; `spec` is in JSON.

    It names the 'backend', the folders ('path') it is imported from, and the 'settings' it is given.
    """
    wanted = json.loads(spec)
    sys.path[:0] = [os.path.abspath(path) for path in wanted["path"]]  # noqa: PTH100
    module, _, attribute = wanted["backend"].partition(":")
    backend = reduce(getattr, filter(None, attribute.split(".")), importlib.import_module(module))
    sys.argv[1:] = []  # old setup.py files read the command line
    settings = wanted.get("settings")
    backend.build_wheel(output, **({"config_settings": settings} if settings else {}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
