"""A lock as a requirements file: the same files by hash, for pip and for everything that reads what pip reads."""

from collections.abc import Iterable, Iterator

from mlbox.lock.model import Folder, Lock, Package
from mlbox.plan.export.words import address, header, not_everywhere, one_line, place, version, without_conda


def requirements(lock: Lock) -> str:
    """Return the file; `pip install --no-deps --require-hashes -r` installs exactly the lock with it.

    Files of the project are found when that is run in its folder. A package of a repository has no hash, its commit
    is one, nor has a folder of the project: pip takes no such things beside hashes, uv does unless it is told to
    require them.
    """
    asked = _asked_by((*lock.packages, *lock.folders))
    lines = [f"# {line}" for line in (*header(lock), *without_conda(lock), *not_everywhere(lock), *_hashless(lock))]
    for folder in lock.folders:
        lines += [f"-e {place(folder)}", *_via((*folder.wanted_by, *asked.get(folder.name, ())))]
    for package in lock.packages:
        pin, *more = (pinned(package), *_hashes(package))
        lines += [f"{pin} \\", f"    {more[0]}"] if more else [pin]
        lines += _via((*package.wanted_by, *asked.get(package.name, ())))
    return "\n".join([*lines, ""])


def _hashless(lock: Lock) -> Iterator[str]:
    if lock.folders and lock.packages:
        names = ", ".join(one_line(folder.name) for folder in lock.folders)
        yield f"uv takes folders of the project beside hashes, pip does not: {names}."


def pinned(package: Package, root: str = "./") -> str:
    """Return the requirement that means exactly this file or commit; files of the project lie in `root`."""
    below = f"#subdirectory={address(package.subdirectory, package)}" if package.subdirectory else ""
    if package.commit:
        url = address(package.url, package).removeprefix("git+")
        return f"{package.name} @ git+{url}@{package.commit}{below}"
    if package.index == "direct":
        named = f"{package.name} @ " if "://" in package.url else root
        return f"{named}{address(package.url, package)}{below}"
    return f"{package.name}=={version(package)}"


def hashed(package: Package, root: str = "./") -> str:
    """Return that requirement with its hash, on one line."""
    return " ".join((pinned(package, root), *_hashes(package)))


def _hashes(package: Package) -> tuple[str, ...]:
    return (f"--hash=sha256:{package.sha256}",) if package.sha256 else ()


def _via(names: Iterable[str]) -> Iterator[str]:
    # As uv and pip-compile write it; a comment must not end in a backslash, or it would take in the next line.
    told = [one_line(name).rstrip("\\ ") for name in names]
    if len(told) == 1:
        yield f"    # via {told[0]}"
    elif told:
        yield "    # via"
        yield from (f"    #   {name}" for name in told)


def _asked_by(packages: Iterable[Package | Folder]) -> dict[str, list[str]]:
    asked: dict[str, list[str]] = {}
    for package in packages:
        for name in package.requires:
            asked.setdefault(name, []).append(package.name)
    return asked
