"""Turns a source distribution into a wheel, by its own build back end, in a container without network."""

import errno
import lzma
import os
import posixpath
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbox.build.step import Bind, Step, StepRunner, misses_network
from mlbox.build.zip import LIMITS, Limits, Zip
from mlbox.codec import canonical_json, load_toml
from mlbox.errors import ArchiveError, BuildError
from mlbox.files import chunks, disk_errors
from mlbox.oci.layer import EPOCH
from mlbox.oci.tar import Member
from mlbox.oci.tarstream import TarStream, unpacked
from mlbox.plan.base import search_path
from mlbox.plan.model import HOME, PREFIX, BuiltWheelPiece
from mlbox.store.tree import TreeWriter

_BUILD = "/build"
_LEGACY = "setuptools.build_meta:__legacy__"
_PER_JOB = 2 << 30
"""Memory that one C++ compiler may take."""
_MOST_TOML = 1 << 20
_HEADER = re.compile(r"fatal error: ([\w./+-]{1,100}): No such file or directory")
_MODULE = re.compile(r"ModuleNotFoundError: No module named '(\w{1,60})")
_PREFIX_MAP = f"-ffile-prefix-map={_BUILD}/source=."
_HINT = "pin another version of the package, one that has a wheel"


def build_wheel(
    piece: BuiltWheelPiece,
    source: Path,
    build_site: Path,
    runner: StepRunner,
    lower: Sequence[Path],
    scratch: Path,
    *,
    toolkit: Path | None = None,
    limits: Limits = LIMITS,
) -> Path:
    """Build the wheel of `piece` from `source` (sdist file or source tree) and return it, a file below `scratch`.

    `build_site` is the environment's prefix with the build requirements in it; `lower` are the layers of the root
    file system, `toolkit` is a CUDA toolkit for it. Raises BuildError naming the package and showing the end of the
    back end's output.
    """
    name = f"{piece.source.name} {piece.source.version}"
    with disk_errors(f"building a wheel of {name}"):
        tree = _source_tree(piece, source, scratch / "source", limits)
        for folder in ("out", "tmp", "hook"):
            (scratch / folder).mkdir()
        (scratch / "hook/hook.py").write_bytes(Path(__file__).with_name("hook.py").read_bytes())
        try:
            runner.run(_step(piece, tree, build_site, lower, scratch, toolkit))
        except BuildError as problem:
            raise BuildError(
                f"building a wheel of {name} failed: {problem.message}", hint=_advice(problem, piece)
            ) from problem
        return _only_wheel(piece, scratch / "out")


def _step(
    piece: BuiltWheelPiece, tree: Path, build_site: Path, lower: Sequence[Path], scratch: Path, toolkit: Path | None
) -> Step:
    below = piece.source.subdirectory.strip("/")
    spec = canonical_json({**_backend(tree / below, piece.source.name), **_settings(piece)}).decode()
    isolated = build_site / "bin/python"
    interpreter = f"/{PREFIX}/bin/python" if isolated.is_symlink() else f"{piece.home or HOME}/python{piece.python}"
    return Step(
        argv=(interpreter, f"{_BUILD}/hook/hook.py", spec, f"{_BUILD}/out"),
        lower=tuple(lower),
        binds=(
            Bind(source=build_site, target=f"/{PREFIX}"),
            Bind(source=scratch / "hook", target=f"{_BUILD}/hook"),
            Bind(source=tree, target=f"{_BUILD}/source", readonly=False),
            Bind(source=scratch / "out", target=f"{_BUILD}/out", readonly=False),
            Bind(source=scratch / "tmp", target="/tmp", readonly=False),  # noqa: S108 - the container's
            *((Bind(source=toolkit, target=f"{_BUILD}/cuda"),) if toolkit else ()),
        ),
        env=_environment(piece, f"{_BUILD}/cuda" if toolkit else ""),
        cwd=posixpath.normpath(f"{_BUILD}/source/{below}"),
        network=piece.source.build_network,
        gpus=piece.source.build_gpu,
    )


def _settings(piece: BuiltWheelPiece) -> dict[str, dict[str, str | list[str]]]:
    """Return the config settings as a back end gets them from pip: what is said several times is a list."""
    said: dict[str, list[str]] = {}
    for line in piece.source.config_settings:
        key, _, value = line.partition("=")
        said.setdefault(key, []).append(value)
    settings = {key: values if len(values) > 1 else values[0] for key, values in said.items()}
    return {"settings": settings} if settings else {}


def _environment(piece: BuiltWheelPiece, toolkit: str) -> dict[str, str]:
    """Return what the back end sees: the image's variables below, mlbox's own over them, the project's win."""
    jobs = str(_jobs())
    below = dict(item.partition("=")[::2] for item in piece.env or ())
    below.pop("PYTHONHOME", None)
    path = search_path(below)
    ours = {
        "PATH": f"{toolkit}/bin:{path}" if toolkit else path,
        "PYTHONPATH": f"/{PREFIX}/lib/python{piece.python}/site-packages",
        "HOME": "/tmp",  # noqa: S108 - the container's
        "TMPDIR": "/tmp",  # noqa: S108 - the container's
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        # zip files cannot hold an earlier time
        "SOURCE_DATE_EPOCH": str(max(piece.epoch, EPOCH)),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **({} if piece.source.build_network else {"PIP_NO_INDEX": "1"}),
        # Else every file with debug information names the folder of the build.
        "CFLAGS": _PREFIX_MAP,
        "CXXFLAGS": _PREFIX_MAP,
        **_for_gpus(piece, below, toolkit),
        "MAX_JOBS": jobs,
        "MAKEFLAGS": f"-j{jobs}",
        "CMAKE_BUILD_PARALLEL_LEVEL": jobs,
        # version control is not there to be asked (setuptools-scm, hatch-vcs; pdm-backend)
        "SETUPTOOLS_SCM_PRETEND_VERSION": piece.source.version,
        "PDM_BUILD_SCM_VERSION": piece.source.version,
    }
    return below | ours | dict(item.partition("=")[::2] for item in piece.source.build_env)


def _for_gpus(piece: BuiltWheelPiece, below: Mapping[str, str], toolkit: str) -> dict[str, str]:
    """Return where the CUDA compiler is and what it compiles for, as PyTorch's extensions and CMake ask for it."""
    if "cuda" not in piece.source.compiled:
        return {}
    architectures = piece.source.gpu_architectures
    plain = [
        one.removesuffix("+PTX").replace(".", "") + ("" if one.endswith("+PTX") else "-real") for one in architectures
    ]
    return {
        "CUDA_HOME": toolkit or below.get("CUDA_HOME", "/usr/local/cuda"),
        "TORCH_CUDA_ARCH_LIST": ";".join(architectures),
        # CMake reads this variable; CMAKE_CUDA_ARCHITECTURES is what build scripts look for.
        "CUDAARCHS": ";".join(plain),
        "CMAKE_CUDA_ARCHITECTURES": ";".join(plain),
        # Names of temporary files reach the object; in the temporary folder nvcc puts its process id into them.
        "NVCC_APPEND_FLAGS": "-objtemp",
        "FORCE_CUDA": "1",  # what extensions of PyTorch ask where no GPU can be seen
    }


def _jobs() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _PER_JOB))


def _backend(tree: Path, name: str) -> dict[str, Any]:
    """Return the back end that pyproject.toml names, and the folders it is imported from."""
    path = tree / "pyproject.toml"
    if not _inside(path) and not _inside(tree / "setup.py"):
        raise BuildError(f"{name}: its source has neither pyproject.toml nor setup.py", hint=_HINT)
    system: Any = {}
    if _inside(path):
        data = path.read_bytes()
        if len(data) > _MOST_TOML:
            raise BuildError(f"{name}: its pyproject.toml is larger than {_MOST_TOML} bytes", hint=_HINT)
        system = load_toml(data, what=f"{name}: pyproject.toml", error=BuildError).get("build-system", {})
    backend = system.get("build-backend", _LEGACY) if isinstance(system, dict) else None
    paths = system.get("backend-path", []) if isinstance(system, dict) else None
    if not isinstance(backend, str) or not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        raise BuildError(f"{name}: its pyproject.toml has a broken [build-system]", hint=_HINT)
    if any(_leaves(path) for path in paths):
        raise BuildError(f"{name}: its back end lies outside its source: {paths}", hint=_HINT)
    return {"backend": backend, "path": paths}


def _inside(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _leaves(path: str) -> bool:
    normal = posixpath.normpath(path)
    return normal.startswith(("/", "../")) or normal == ".."


def _advice(problem: BuildError, piece: BuiltWheelPiece) -> str:
    if found := _HEADER.search(problem.message):
        return f"the Debian package with {found[1]} belongs in [tool.mlbox] build-packages"
    if misses_network(problem.message) and not piece.source.build_network:
        return f"a build has no network; [tool.mlbox.build.{piece.source.name}] network = true gives it the host's"
    if any(word in problem.message for word in ("gcc", "cc'", "g++", "compiler", "Python.h")):
        if not piece.suite:
            return "it needs a compiler: take a base that has one (python:3.12 in place of python:3.12-slim)"
        return 'it needs a compiler: [tool.mlbox] build-packages = ["build-essential"]'
    if found := _MODULE.search(problem.message):
        name = piece.source.name
        return f'if its build needs {found[1]}, say so: [tool.mlbox.build.{name}] requires = ["{found[1]}"]'
    return problem.hint or _HINT


def _only_wheel(piece: BuiltWheelPiece, folder: Path) -> Path:
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import InvalidVersion, Version

    name, version = piece.source.name, piece.source.version
    wheels = [path for path in folder.iterdir() if path.suffix == ".whl" and stat.S_ISREG(path.lstat().st_mode)]
    if len(wheels) != 1:
        raise BuildError(f"{name} {version}: its back end made {len(wheels)} wheels instead of one", hint=_HINT)
    try:
        made, made_version, _, _ = parse_wheel_filename(wheels[0].name)
        fits = made == canonicalize_name(name) and made_version == Version(version)
    except (InvalidWheelFilename, InvalidVersion):
        fits = False
    if not fits:
        raise BuildError(f"{name} {version}: its back end made {wheels[0].name!r}, something else", hint=_HINT)
    return wheels[0]


def _source_tree(piece: BuiltWheelPiece, source: Path, folder: Path, limits: Limits) -> Path:
    """Unpack or copy `source` to `folder` and return the folder that holds the project."""
    if _leaves(piece.source.subdirectory):
        raise BuildError(f"{piece.source.name}: {piece.source.subdirectory!r} lies outside its source")
    if source.is_dir():
        shutil.copytree(source, folder, symlinks=True)
        return folder
    name = piece.source.filename
    unpack_sdist(source, folder, name, limits)
    tops = list(folder.iterdir())
    if len(tops) != 1 or tops[0].is_symlink() or not tops[0].is_dir():
        raise ArchiveError(f"{name}: a source archive holds one folder, this one has {len(tops)} entries", hint=_HINT)
    return tops[0]


def unpack_sdist(path: Path, folder: Path, name: str, limits: Limits = LIMITS) -> None:
    """Unpack the .tar.* or .zip `path` into the new `folder`.

    Whatever is damaged or would leave the folder raises ArchiveError naming the archive.
    """
    try:
        _unpack(path, TreeWriter(folder, name), limits)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as problem:
        if isinstance(problem, OSError) and problem.errno not in (None, errno.ENAMETOOLONG):
            raise
        raise ArchiveError(f"{name}: not a readable source archive: {problem}", hint=_HINT) from problem


def _unpack(path: Path, writer: TreeWriter, limits: Limits) -> None:
    if zipfile.is_zipfile(path):
        with Zip(path, writer.archive, limits) as archive:
            for file in archive.members.values():
                writer.file(file.name, archive.chunks(file), 0o755 if file.executable else 0o644)
    else:
        with path.open("rb") as packed:
            _unpack_tar(TarStream(unpacked(packed), writer.archive, limits.files), path.stat().st_size, writer, limits)
    writer.finish()


def _unpack_tar(tar: TarStream, packed: int, writer: TreeWriter, limits: Limits) -> None:
    total = 0
    for member in tar:
        origin = _origin(member, writer)
        total += origin.stat().st_size if origin else member.size
        if total > limits.total or (total > limits.small and total > packed * limits.ratio):
            raise ArchiveError(f"{writer.archive}: grows to {total} bytes, as a tar bomb does", hint=_HINT)
        _unpack_member(tar, member, origin, writer)


def _origin(member: Member, writer: TreeWriter) -> Path | None:
    """Return the file that a hard link is another name of; it becomes a copy."""
    if member.kind != "link":
        return None
    target = _normal(member.target)
    if writer.kind(target) != "file":
        raise ArchiveError(f"{writer.archive}: {member.path!r} is a hard link to no file before it", hint=_HINT)
    return Path(writer.root, target)


def _unpack_member(tar: TarStream, member: Member, origin: Path | None, writer: TreeWriter) -> None:
    # The writer never writes through a link, whatever the links are.
    path, mode = _normal(member.path), 0o755 if member.mode & 0o111 else 0o644
    if path == ".":
        return
    if member.kind == "dir":
        writer.directory(path)
    elif origin:
        with origin.open("rb") as file:
            writer.file(path, chunks(file), mode)
    elif member.kind == "file" and member.extents is None:
        writer.file(path, tar.content(), mode)
    elif member.kind == "symlink":
        if _leaves(posixpath.join(posixpath.dirname(path), member.target)):
            raise ArchiveError(f"{writer.archive}: {path!r} is a link that leaves the archive", hint=_HINT)
        writer.symlink(path, member.target)
    else:
        raise ArchiveError(f"{writer.archive}: {path!r} is a device, a pipe or a sparse file", hint=_HINT)


def _normal(path: str) -> str:
    """Return the one way to write a member's path; an absolute one stays one, which the writer refuses."""
    return path if path.startswith("/") else posixpath.normpath(path)
