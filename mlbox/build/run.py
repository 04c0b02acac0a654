"""Commands of the project that change the image: run once each, in a container on the image so far.

What a command changes is one layer. It is known by what went into it (the image below, the command, its variables and
input files) and pinned by what came out: nothing says that a second run comes to the same.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlbox.build.changes import TELLING, Changes, Trees, read_changes
from mlbox.build.project import checked
from mlbox.build.step import Bind, Step, StepRunner, misses_network
from mlbox.errors import BuildError
from mlbox.files import disk_errors
from mlbox.plan.model import ProjectFile, RunPiece
from mlbox.plan.run import title
from mlbox.store.memory import folder_in_memory
from mlbox.store.tree import TreeWriter

SECRETS = "/run/secrets"
"""Where a command finds the secrets it asked for, one file each."""
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def run_command(
    piece: RunPiece, lower: Trees, project: Path, runner: StepRunner, scratch: Path, env: Mapping[str, str]
) -> Changes:
    """Run the command of `piece` on the layers `lower` (lowest first) and return what it changed, below `scratch`.

    Its input files are those of `project`, its secrets are taken from `env`, the variables of this process. Raises
    BuildError when it fails or makes what no layer can hold, ProjectError when its inputs are not what they were.
    """
    secrets = _secrets(piece, env)
    upper = scratch / "changes"
    with disk_errors(f"running {title(piece.command)}"), _secret_files(secrets, scratch) as folder:
        upper.mkdir(mode=0o755)
        inputs = _stage(piece.inputs, project, scratch / "inputs")
        binds = [*_input_binds(piece, inputs)]
        binds += [Bind(source=folder / name, target=f"{SECRETS}/{name}") for name in secrets]
        step = Step(
            argv=piece.command,
            lower=tuple(root for root, _ in lower),
            binds=tuple(binds),
            env=_environment(piece, env),
            cwd=piece.workdir,
            network=piece.network,
            gpus=piece.gpu,
            changes=upper,
        )
        try:
            runner.run(step)
        except BuildError as problem:
            raise BuildError(_hidden(problem.message, secrets), hint=problem.hint or _advice(problem, piece)) from None
        mounts = {bind.target.lstrip("/") for bind in binds}
        # The folder it runs in is there for that.
        mounts.add(f"{piece.workdir.strip('/')}/.")
        return read_changes(upper, lower, epoch=piece.epoch, arch=piece.arch, mounts=mounts, secrets=secrets)


def _advice(problem: BuildError, piece: RunPiece) -> str:
    if piece.network or not misses_network(problem.message):
        return ""
    return 'a command has no network unless it asks: run = [{ command = "...", network = true }]'


def _environment(piece: RunPiece, env: Mapping[str, str]) -> dict[str, str]:
    told = dict(item.partition("=")[::2] for item in piece.env)
    if not piece.network:
        return told
    # As in other builders they belong to the host, not to the image, and change nothing of what is made.
    names = [name for proxy in _PROXIES for name in (proxy, proxy.upper()) if env.get(name)]
    return {name: env[name] for name in names} | told


def _secrets(piece: RunPiece, env: Mapping[str, str]) -> dict[str, str]:
    if missing := [name for name in piece.secrets if not env.get(name)]:
        raise BuildError(
            f"{title(piece.command)} needs the secret {missing[0]}, and no variable of that name is set",
            hint=f"{missing[0]}=... mlbox build",
        )
    return {name: env[name] for name in piece.secrets}


@contextmanager
def _secret_files(secrets: Mapping[str, str], scratch: Path) -> Iterator[Path]:
    """Yield a folder with a file for each secret, in memory where there is such a place."""
    if not secrets:
        yield scratch
        return
    with folder_in_memory(scratch) as folder:
        for name, value in secrets.items():
            fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(fd, "wb") as file:
                file.write(os.fsencode(value))
        yield folder


def _hidden(text: str, secrets: Mapping[str, str]) -> str:
    """Return `text` without the secrets; of one with many lines, a key, the end of an output may have only some."""
    for name, value in secrets.items():
        lines = [line.strip() for line in value.splitlines()]
        for part in (value.strip() or value, *(line for line in lines if len(line) >= TELLING)):
            text = text.replace(part, f"[{name}]")
    return text


def _stage(files: Sequence[ProjectFile], project: Path, folder: Path) -> Path:
    """Copy the input files, so that the command sees exactly those that its layer is known by."""
    writer = TreeWriter(folder, "inputs")
    for file in files:
        if file.target:
            writer.symlink(file.path, file.target)
        else:
            writer.file(file.path, checked(project, file), file.mode)
    writer.finish()
    return folder


def _input_binds(piece: RunPiece, folder: Path) -> Iterator[Bind]:
    """Yield a mount for the highest folder or file of each input; the rest of the working folder stays the image's."""
    for name in piece.input_names:
        yield Bind(source=folder / name, target=f"{piece.workdir.rstrip('/')}/{name}")
