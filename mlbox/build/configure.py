"""Packages whose maintainer scripts make files that mlbox does not: the scripts run once, in a container.

What they changed is taken out, normalised like any piece, and laid over the system packages. It is pinned by the
packages and by the root file system it ran in, not reproducible by mlbox's rules alone.
"""

from collections.abc import Sequence
from pathlib import Path

from mlbox.build.step import Bind, Step, StepRunner
from mlbox.errors import BuildError
from mlbox.oci.tarstream import TarStream
from mlbox.plan.model import PREFIX, CondaConfiguredPiece, ConfiguredPiece
from mlbox.store.tree import Tree, TreeWriter

_OUT = "/run/mlbox-out"
_STAMP = r"""
set -eu
stamp=/run/mlbox-stamp
touch -d '1 second ago' "$stamp"
"""
_MAINTAINER = r"""
for package; do
    script=$(ls "/var/lib/dpkg/info/$package.postinst" "/var/lib/dpkg/info/$package":*.postinst 2>/dev/null | head -n 1)
    [ -n "$script" ] || continue
    export DPKG_MAINTSCRIPT_PACKAGE="$package" DPKG_MAINTSCRIPT_NAME=postinst
    "$script" configure ""
done
"""
# As conda starts them: NAME VERSION BUILD of each package are arguments.
_LINK = r"""
while [ $# -gt 0 ]; do
    export PKG_NAME="$1" PKG_VERSION="$2" PKG_BUILDNUM="${3##*_}"
    shift 3
    for when in pre-link post-link; do
        script="$PREFIX/bin/.$PKG_NAME-$when.sh"
        [ ! -f "$script" ] || PATH="$PREFIX/bin:$PATH" bash "$script"
    done
done
rm -f "$PREFIX/.messages.txt"
"""
# Logs, caches and the stamp itself say when and how the scripts ran: nothing of that belongs in an image.
_TAKE = r"""
find / -xdev -newer "$stamp" \( -type f -o -type l \) \
    ! -path '/proc/*' ! -path '/sys/*' ! -path '/dev/*' ! -path '/run/*' ! -path '/tmp/*' \
    ! -path '/var/log/*' ! -path '/var/cache/*' ! -path '/etc/hosts' ! -path '/etc/hostname' \
    ! -path '/etc/resolv.conf' ! -path '/var/lib/dpkg/*-old' -print0 |
    tar --null --no-recursion --format=gnu -C / -T - -cf /run/mlbox-out/changed.tar
"""
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def configure(root: Path, piece: ConfiguredPiece, lower: Sequence[Path], runner: StepRunner, scratch: Path) -> Tree:
    """Run the scripts of `piece.packages` over the layers `lower` and write what they changed below `root`.

    Raises BuildError with the end of a script's output when it fails.
    """
    changed = _changed(_MAINTAINER, piece.packages, _ENVIRONMENT, lower, runner, scratch)
    return _unpack(changed, root, piece)


def run_link_scripts(
    root: Path, piece: CondaConfiguredPiece, lower: Sequence[Path], runner: StepRunner, scratch: Path
) -> Tree:
    """Run the link scripts of the conda packages `piece.packages`, as `configure` does a maintainer's."""
    env = _ENVIRONMENT | dict.fromkeys(("PREFIX", "CONDA_PREFIX"), f"/{PREFIX}")
    words = [word for one in piece.conda if one.name in piece.packages for word in (one.name, one.version, one.build)]
    return _unpack(_changed(_LINK, words, env, lower, runner, scratch), root, piece)


def _changed(
    script: str,
    words: Sequence[str],
    env: dict[str, str],
    lower: Sequence[Path],
    runner: StepRunner,
    scratch: Path,
) -> Path:
    """Run `script` over the layers `lower` and return a tar of what it changed."""
    out = scratch / "out"
    out.mkdir()
    runner.run(
        Step(
            argv=("/bin/sh", "-c", _STAMP + script + _TAKE, "configure", *words),
            lower=tuple(lower),
            binds=(Bind(source=out, target=_OUT, readonly=False),),
            env=env,
        )
    )
    return out / "changed.tar"


def _unpack(archive: Path, root: Path, piece: ConfiguredPiece | CondaConfiguredPiece) -> Tree:
    writer = TreeWriter(root, "configured packages", mtime=piece.epoch)
    with archive.open("rb") as file:
        tar = TarStream(file, archive.name)
        for member in tar:
            path = member.path.removeprefix("./").lstrip("/")
            if member.kind == "symlink":
                writer.symlink(path, member.target)
            elif member.kind == "file" and member.extents is None:
                writer.file(path, tar.content(), 0o755 if member.mode & 0o111 else 0o644)
            elif member.kind != "dir":
                raise BuildError(f"a package's script made {path!r}, which is neither a file nor a link")
    return writer.finish()
