"""A lock as pylock.toml (PEP 751; packaging.python.org, "pylock.toml Specification")."""

from collections.abc import Iterator, Sequence

from mlbox.codec import quoted
from mlbox.lock.model import Folder, Lock, Package
from mlbox.plan.export.words import MACHINES, Address, address, header, place, version, without_conda

_FOLDER = "wheels"


def pylock(lock: Lock, folder: str = _FOLDER, root: str = "", where: Address | None = None) -> str:
    """Return the text of pylock.toml.

    The standard wants a `url` or a `path` for each file, and a lock knows no address of an index: so a file is a
    `path` below `folder`, and one of the project below `root`, both as seen from where pylock.toml will lie ('' is
    beside it). Only what the project itself names by URL keeps it; with `where` a file is where that says, a URL or a
    path. A reader checks the hash wherever the file is from.
    """
    target = lock.target
    marker = (
        f"sys_platform == 'linux' and platform_machine == '{MACHINES[target.arch]}'"
        " and implementation_name == 'cpython'"
    )
    lines = [
        *(f"# {line}" for line in (*header(lock), *without_conda(lock))),
        'lock-version = "1.0"',
        f"environments = [{quoted(marker)}]",
        f'requires-python = "=={target.python}.*"',
        'created-by = "mlbox"',
        *([] if lock.packages or lock.folders else ["packages = []"]),
    ]
    for one in lock.folders:
        lines += _directory(one, _below(root))
    for package in lock.packages:
        lines += _package(package, _below(folder), _below(root), where)
    return "\n".join([*lines, ""])


def _directory(folder: Folder, root: str) -> Iterator[str]:
    yield ""
    yield "[[packages]]"
    yield f"name = {quoted(folder.name)}"
    yield from _dependencies(folder.requires)
    yield "[packages.directory]"
    yield f"path = {quoted(place(folder, root))}"
    yield "editable = true"


def _dependencies(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"dependencies = [{', '.join(f'{{ name = {quoted(name)} }}' for name in names)}]"


def _package(package: Package, folder: str, root: str, where: Address | None) -> Iterator[str]:
    yield ""
    yield "[[packages]]"
    yield f"name = {quoted(package.name)}"
    yield f"version = {quoted(version(package))}"
    yield from _dependencies(package.requires)
    if package.commit:
        yield "[packages.vcs]"
        yield 'type = "git"'
        yield f"url = {quoted(address(package.url, package).removeprefix('git+'))}"
        yield f"commit-id = {quoted(package.commit)}"
        yield from _subdirectory(package)
    elif package.index == "direct":
        remote = "://" in package.url
        place = address(package.url, package) if remote else f"{root}{package.url}"
        yield "[packages.archive]"
        yield f"{'url' if remote else 'path'} = {quoted(place)}"
        yield from _file(package)
        yield from _subdirectory(package)
    else:
        yield "[[packages.wheels]]" if package.is_wheel else "[packages.sdist]"
        yield f"name = {quoted(package.filename)}"
        place = where(package) if where else folder + package.filename
        yield f"{'url' if '://' in place else 'path'} = {quoted(place)}"
        yield from _file(package)


def _file(package: Package) -> Iterator[str]:
    if package.size:
        yield f"size = {package.size}"
    yield f"hashes = {{ sha256 = {quoted(package.sha256)} }}"


def _subdirectory(package: Package) -> Iterator[str]:
    if package.subdirectory:
        yield f"subdirectory = {quoted(package.subdirectory)}"


def _below(folder: str) -> str:
    return f"{folder.rstrip('/')}/" if folder else ""
