# Sourced by quickstart.sh and tests/run.sh: makes .venv at the top of the checkout and installs Debian packages.
# Sets $top (the checkout), $sudo (empty for root) and $bin (the environment's programs).
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/.venv/bin
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

say() { printf '\n==> %s\n' "$*"; }

# debian PACKAGE...: install what is missing.
debian() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "apt-get install$missing"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
}

# python: print the newest interpreter that mlbox runs on.
python() {
    for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "mlbox needs Python 3.11 or newer" >&2
    exit 1
}

# environment [PIP ARGUMENT...]: make .venv once and install mlbox from this checkout into it.
environment() {
    if [ ! -x "$bin/python" ]; then
        say "python -m venv .venv"
        "$(python)" -m venv "$top/.venv"
    fi
    stamp=$top/.venv/installed-$(cat "$top/pyproject.toml" "$0" | cksum | tr ' ' -)
    if [ ! -e "$stamp" ]; then
        say "pip install mlbox"
        "$bin/python" -m pip install -q --disable-pip-version-check --upgrade 'pip>=26'
        "$bin/python" -m pip install -q --disable-pip-version-check "$@"
        # Some environments forbid writing byte code at run time; without it every start compiles mlbox again.
        "$bin/python" -m compileall -q "$top/mlbox"
        touch "$stamp"
    fi
}
