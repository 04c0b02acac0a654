#!/bin/sh
# Installs what the tests need and runs all of them; arguments go to pytest. Safe to run again.
. "$(dirname "$0")/../examples/setup.sh"

debian runc tini python3-venv git ca-certificates busybox-static skopeo umoci podman docker.io docker-registry
environment -e "$top" --group "$top/pyproject.toml:dev"

cd "$top"
say "pytest"
# The order of the files, not the number of their tests: those that take long come first, and no processor idles at the end.
exec $sudo env MLBOX_REQUIRE="${MLBOX_REQUIRE-1}" "$bin/python" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
