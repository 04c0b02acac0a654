"""A build plan as a Dockerfile whose image has the same files in its environment, for builders without mlbox.

It is for BuildKit's own reader of Dockerfiles, of any version: no newer syntax, so none to fetch. It says no address:
index and mirror come from the builder's configuration, as build arguments or secrets. What apt and pip do differs from
what mlbox does in what they write about themselves: INSTALLER, REQUESTED, direct_url.json and their lines in RECORD.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from mlbox.errors import LockError
from mlbox.lock.model import Base, Deb, Lock, Package
from mlbox.oci.layer import EPOCH
from mlbox.plan.base import pinned as pinned_base
from mlbox.plan.export.instructions import Placed, exec_form, label, place, port, runs, variable, word, written
from mlbox.plan.export.requirements import hashed
from mlbox.plan.export.words import header, one_line, version
from mlbox.plan.model import HOME, PREFIX, BuildPlan, ProjectPiece, RunPiece
from mlbox.plan.run import run_piece

_CONTEXT = "/context"
_TOOLS = "/opt/build-tools"
_CONDA = "/opt/build-conda"
_WHEELS = "/opt/build-wheels"
_WORK = "/tmp"  # noqa: S108 - of a build stage
_APT = "--mount=type=secret,id=apt,target=/etc/apt/sources.list.d/build.list"
_KEY = " --mount=type=secret,id=apt-key,target=/etc/apt/keyrings/build.asc"
_PIP = "--mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/root/.netrc"
_ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
_DEB_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")


def dockerfile(plan: BuildPlan, lock: Lock, skeleton: Sequence[Placed], installed: Sequence[Placed]) -> str:
    """Return the Dockerfile of `plan`: `skeleton` is its empty environment, `installed` the project's own metadata.

    The files of the project are those that the build context has: `dockerignore` says which.
    """
    sources = [package for package in lock.packages if not package.is_wheel]
    stages = (
        _header(lock),
        _base(lock),
        _tools(lock) if _has_tools(lock) else (),
        _compile(lock, sources) if sources else (),
        _environment(lock, sources, skeleton, installed),
        _project(plan, lock),
        _final(plan, lock),
    )
    return "\n".join("\n".join(lines) + "\n" for stage in stages if (lines := list(stage)))


def dockerignore(plan: BuildPlan, without: Iterable[str] = ()) -> str:
    """Return what keeps everything but the plan's files out of the build context, and of those the ones in `without`.

    It names files, not rules: what a folder gets later, a key or a data set, is not sent to anybody.
    """
    wanted = sorted({*_project_files(plan), *_local_files(plan.packages), *_input_files(plan)} - {*without})
    return "\n".join(["**", *(f"!{_pattern(path)}" for path in wanted), ""])


def _header(lock: Lock) -> Iterator[str]:
    yield from (f"# {line}" for line in header(lock))
    yield "# Build it with BuildKit in the project's folder, with the .dockerignore that came with it:"
    yield "#   docker build --secret id=pip,src=pip.conf --secret id=apt,src=sources.list -t NAME ."
    yield "# Index and mirror are the builder's own: the secrets (there is id=netrc too) say them, or --build-arg"
    yield "# PIP_INDEX_URL=…, or nothing when what pip and apt have by themselves will do."
    if lock.snapshot:
        yield f"# The packages below are those of {one_line(lock.snapshot)}, of a snapshot maybe."
    if others := sorted({deb.source for deb in (*lock.debs, *lock.build_debs) if deb.source}):
        yield f"# Some are of other archives: {', '.join(map(one_line, others))}. sources.list says where they are, and"
        yield "# --secret id=apt-key is for their keys: [signed-by=/etc/apt/keyrings/build.asc]."
    if elsewhere := sorted({package.index for package in lock.packages} - {"default", "direct", "git"}):
        yield f"# Some files are in other indexes than the default one: {', '.join(map(one_line, elsewhere))}."


def _base(lock: Lock) -> Iterator[str]:
    platform = f"--platform=linux/{lock.target.arch}"
    if lock.conda:
        yield "ARG MICROMAMBA=docker.io/mambaorg/micromamba:2"
    if lock.base.kind == "image":
        yield f"FROM {platform} {pinned_base(lock.base)} AS base"
    else:
        yield "# The base is locked as packages, not as an image: their versions are pinned, whatever the tag means"
        yield "# (--build-arg BASE=NAME@sha256:… pins what lies below them too)."
        yield f"ARG BASE=debian:{lock.base.suite}-slim"
        yield f"FROM {platform} ${{BASE}} AS base"
    yield from _root(lock.base)
    yield from _packages(list(map(_exact, lock.debs)))


def _root(base: Base) -> Iterator[str]:
    """Yield what makes an image one to build on: its own user and Python's home would be in the way."""
    if base.user not in ("", "0", "root"):
        yield "USER 0"
    if any(item.startswith("PYTHONHOME=") for item in base.env):
        yield 'ENV PYTHONHOME=""'


def _has_tools(lock: Lock) -> bool:
    return bool(lock.packages or lock.conda)


def _tools(lock: Lock) -> Iterator[str]:
    if lock.conda:
        yield "FROM ${MICROMAMBA} AS micromamba"
        yield ""
    yield "FROM base AS tools"
    if lock.conda:
        yield from _conda(lock)
    if lock.packages:
        yield from _pip_of(lock, lock.base)


def _conda(lock: Lock) -> Iterator[str]:
    """Yield what makes a conda environment: micromamba links exactly those files, then their hashes are checked."""
    names = [f"{one.channel}/{one.subdir}/{one.filename}" for one in lock.conda]
    hashes = [f"{one.sha256}  {one.filename}" for one in lock.conda]
    listed = "".join(f"@ALIAS@/{name}\n" for name in names)
    yield "COPY --from=micromamba /bin/micromamba /usr/local/bin/micromamba"
    yield "# Where conda's channels are, each below its name: https://HOST"
    yield "ARG CONDA_CHANNEL_ALIAS"
    yield from runs(written(f"{_WORK}/conda.txt", f"@EXPLICIT\n{listed}".encode()))
    yield from runs(written(f"{_WORK}/conda.sha256", "".join(f"{line}\n" for line in hashes).encode()))
    yield f'RUN : "${{CONDA_CHANNEL_ALIAS:?}}" && sed -i "s|^@ALIAS@|${{CONDA_CHANNEL_ALIAS%/}}|" {_WORK}/conda.txt \\'
    yield f" && export MAMBA_ROOT_PREFIX={_CONDA} \\"
    yield f" && micromamba create -y --no-rc --no-pyc --always-copy -p /{PREFIX} --file {_WORK}/conda.txt \\"
    yield f" && cd {_CONDA}/pkgs && sha256sum -c {_WORK}/conda.sha256"


def _pip_of(lock: Lock, base: Base) -> Iterator[str]:
    """Yield what makes pip, in an environment of its own: the locked one when there is one, as it writes the files."""
    # An image with a Python of its own has what makes environments.
    own = lock.conda or not base.suite or base.home not in ("", HOME)
    yield from _packages(() if own else ("python3-venv",))
    yield from (f"ARG {name}" for name in _ARGUMENTS)
    yield "ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1"
    home = f"/{PREFIX}/bin" if lock.conda else base.home or HOME
    yield f"RUN {home}/python{lock.target.python} -m venv {_TOOLS}"
    if pip := [package for package in lock.packages if package.name == "pip" and package.is_wheel]:
        yield from _requirements("pip", pip)
        yield _pip(f"{_TOOLS}/bin/python -m pip install --no-deps --require-hashes -r {_WORK}/pip.txt", pip)


def _compile(lock: Lock, sources: Sequence[Package]) -> Iterator[str]:
    """Yield the stage with compilers: it makes wheels, and is thrown away."""
    if lock.build_base is not None:
        yield f"FROM --platform=linux/{lock.target.arch} {pinned_base(lock.build_base)} AS compile"
        yield from _root(lock.build_base)
    else:
        yield "FROM tools AS compile"
    git = ("git",) if any(package.commit for package in sources) else ()
    base = lock.build_base or lock.base
    yield from _packages([*map(_exact, lock.build_debs), *(git if base.suite else ())])
    if lock.build_base is not None:
        yield from _pip_of(lock, lock.build_base)
    if lock.build_packages:
        yield from _requirements("build", lock.build_packages)
        install = "pip install --no-deps --require-hashes --only-binary :all:"
        yield _pip(f"{_TOOLS}/bin/python -m {install} -r {_WORK}/build.txt", lock.build_packages)
    for package in sources:
        yield from _wheel(package, lock)


def _wheel(package: Package, lock: Lock) -> Iterator[str]:
    told = " ".join(shlex.quote(line) for line in _build_environment(package, lock))
    settings = "".join(f" --config-settings={shlex.quote(line)}" for line in package.config_settings)
    hashes = " --require-hashes" if package.sha256 else ""
    how = f"--no-deps --no-build-isolation --no-binary {package.name}{hashes}{settings}"
    command = f"pip wheel -w {_WHEELS} {how} -r {_WORK}/{package.name}.txt"
    yield from _requirements(package.name, [package])
    yield _pip(f"PATH={_TOOLS}/bin:$PATH env {told} \\\n      {_TOOLS}/bin/python -m {command}", [package])


def _build_environment(package: Package, lock: Lock) -> Iterator[str]:
    """Yield the variables that a back end gets from mlbox too, those that may change what it makes."""
    yield f"SOURCE_DATE_EPOCH={max(lock.epoch, EPOCH)}"
    yield "PYTHONHASHSEED=0"
    # Version control is not asked: there the commit is, here an archive.
    yield f"SETUPTOOLS_SCM_PRETEND_VERSION={version(package)}"
    yield f"PDM_BUILD_SCM_VERSION={version(package)}"
    if "cuda" in package.compiled:
        yield f"TORCH_CUDA_ARCH_LIST={';'.join(package.gpu_architectures)}"
        yield "FORCE_CUDA=1"
    yield from map(one_line, package.build_env)


def _environment(
    lock: Lock, sources: Sequence[Package], skeleton: Sequence[Placed], installed: Sequence[Placed]
) -> Iterator[str]:
    yield f"FROM {'tools' if _has_tools(lock) else 'base'} AS environment"
    yield from runs(place(skeleton))
    if sources:
        names = " ".join(f"{package.name}=={version(package)}" for package in sources)
        there = f"RUN --mount=type=bind,from=compile,source={_WHEELS},target={_WHEELS} \\\n    "
        yield there + _install(lock, f"--no-index --find-links {_WHEELS} {names}")
    if wheels := [package for package in lock.packages if package.is_wheel]:
        yield from _requirements("wheels", wheels)
        yield _pip(_install(lock, f"--require-hashes --only-binary :all: -r {_WORK}/wheels.txt"), wheels)
    if installed:
        yield "# The project itself, as pip's editable installs do it."
        yield from runs(place(installed))


def _install(lock: Lock, what: str) -> str:
    """Return the command that installs into the environment by the tools' pip, which it must not see as its own."""
    site = f"{_TOOLS}/lib/python{lock.target.python}/site-packages"
    pip = f"PYTHONPATH={site} /{PREFIX}/bin/python -m pip install"
    return f"{pip} \\\n      --ignore-installed --no-deps --no-compile {what}"


def _project(plan: BuildPlan, lock: Lock) -> Iterator[str]:
    yield "FROM base AS project"
    yield f"COPY . {_CONTEXT}"
    if extra := sorted((_local_files(lock.packages) | _input_files(plan)) - set(_project_files(plan))):
        yield f"RUN cd {_CONTEXT} && rm -- {' '.join(map(shlex.quote, extra))} && find . -depth -type d -empty -delete"
    yield f"RUN chmod -R u=rwX,go=rX {_CONTEXT}"


def _final(plan: BuildPlan, lock: Lock) -> Iterator[str]:
    config, base = plan.config, lock.base
    yield "FROM base"
    yield f"COPY --from=environment /{PREFIX} /{PREFIX}"
    for layer in plan.layers:
        if (piece := run_piece(layer)) is not None:
            yield from _command(piece)
        elif layer.kind == "project":
            yield f"COPY --from=project {exec_form((_CONTEXT, config.working_dir), expanded=True)}"
    for item in config.env:
        if item not in base.env:
            name, _, value = item.partition("=")
            yield variable(name, value)
    for name, value in sorted(config.labels.items()):
        if f"{name}={value}" not in base.labels:
            yield label(name, value)
    yield f"WORKDIR {word(config.working_dir, 'the working directory')}"
    yield from map(port, config.exposed_ports)
    if base.kind == "image":
        yield "HEALTHCHECK NONE"
        yield "STOPSIGNAL SIGTERM"
    if config.user or base.user not in ("", "0", "root"):
        yield f"USER {word(config.user or '0', 'the user')}"
    if config.entrypoint or base.kind == "image":
        yield f"ENTRYPOINT {exec_form(config.entrypoint or ())}"
    yield f"CMD {exec_form(config.cmd or ())}"


def _command(piece: RunPiece) -> Iterator[str]:
    mounts = [f"type=bind,source={_mounted(name)},target={_mounted(_below(piece, name))}" for name in piece.input_names]
    mounts += [f"type=secret,id={name}" for name in piece.secrets]
    options = "".join(f"--mount={mount} " for mount in mounts)
    yield f"WORKDIR {word(piece.workdir, 'the working directory')}"
    yield f"RUN {options}{exec_form(('env', *piece.env, *piece.command))}"


def _below(piece: RunPiece, name: str) -> str:
    return f"{piece.workdir.rstrip('/')}/{name}"


def _mounted(path: str) -> str:
    if re.search(r"[\s,\"'$\\\x00-\x1f]", path):
        raise LockError(f"run: the input {path!r} cannot be said in a Dockerfile", hint="give it a plainer name")
    return path


def _packages(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"RUN {_APT}{_KEY} \\"
        yield "    apt-get update \\"
        yield " && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --allow-downgrades \\"
        yield from (f"      {name} \\" for name in names)
        yield " && rm -rf /var/lib/apt/lists/*"


def _requirements(name: str, packages: Iterable[Package]) -> Iterator[str]:
    text = "".join(f"{hashed(package, f'file://{_CONTEXT}/')}\n" for package in packages)
    yield from runs(written(f"{_WORK}/{name}.txt", text.encode()))


def _pip(command: str, packages: Iterable[Package]) -> str:
    # Of the build context it sees only what it must: any change there would make it run again.
    context = f"--mount=type=bind,target={_CONTEXT} " if _local_files(packages) else ""
    return f"RUN {context}{_PIP} \\\n    {command}"


def _project_files(plan: BuildPlan) -> tuple[str, ...]:
    pieces = (piece for layer in plan.layers for piece in layer.pieces if isinstance(piece, ProjectPiece))
    return tuple(file.path for piece in pieces for file in piece.files)


def _input_files(plan: BuildPlan) -> set[str]:
    return {file.path for layer in plan.layers if (piece := run_piece(layer)) for file in piece.inputs}


def _local_files(packages: Iterable[Package]) -> set[str]:
    return {package.url for package in packages if package.index == "direct" and "://" not in package.url}


def _pattern(path: str) -> str:
    # Go's filepath.Match, which moby makes a regular expression of, leaving '+' and the like as they are. What would
    # be cut off at the ends of a line, or would end it, is any one character.
    escaped = re.sub(r"[*?\[\]\\+(){}|^]", r"\\\g<0>", path)
    return re.sub(r"^\s+|\s+$|[\x00-\x1f]", lambda found: "?" * len(found[0]), escaped)


def _exact(deb: Deb) -> str:
    if not _DEB_VERSION.fullmatch(deb.version):
        raise LockError(f"{deb.version!r} is no version of a Debian package")
    return f"{deb.name}={deb.version}"
