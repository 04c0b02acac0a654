"""A lock, a project or an image, said in the words of other tools."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from mlbox.build.rebuild import decode_plan
from mlbox.engine.building import ProjectOptions, Workshop
from mlbox.engine.freshness import check_fresh
from mlbox.engine.trust.materials import name_of
from mlbox.engine.variants import meant
from mlbox.errors import LockError, NotFoundError
from mlbox.events import Listener
from mlbox.files import CHUNK, disk_errors
from mlbox.lock.accelerators import for_accelerator
from mlbox.lock.file import decode_lock, read_lock
from mlbox.lock.model import CondaPackage, Lock, Package
from mlbox.paths import Home
from mlbox.plan.model import AnyPiece, BuildPlan, EnvPiece, ProjectPiece
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.build.fetch import Places
    from mlbox.http import Http
    from mlbox.plan.export.instructions import Placed
    from mlbox.plan.export.words import Address
    from mlbox.project.model import Project

_DOWNLOADS = 8
_IGNORE = ".dockerignore"


ExportFormat = Literal["pylock", "requirements", "conda-lock", "environment.yml", "dockerfile", "sbom", "spdx"]


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported, and where it will lie."""

    what: str = "."
    """An image, a lock, or the folder of a project with a lock."""
    form: ExportFormat
    output: Path | None = None
    """The file it will become: paths in it are relative to there. None: to the current folder."""
    wheels: Path | None = None
    """A folder that gets the files of the lock's Python packages; pylock.toml then names them there."""
    urls: bool = False
    """Whether pylock.toml names files by where this machine's indexes have them, and not by path."""
    accelerator: str = ""
    """Which of the lock's; empty: its first."""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A lock in another format."""

    data: bytes
    beside: dict[str, bytes] = {}
    """Files that belong next to it, by what is added to its name: '.dockerignore'."""


def export(home: Home, options: ExportOptions, listener: Listener) -> Exported:
    """Return what `options` ask for. With `wheels` the packages' files are fetched into that folder."""
    if not Path(options.what).exists():
        name = meant(Store(home), options.what, listener, accelerator=options.accelerator)
        options = msgspec.structs.replace(options, what=name)
    subject = _subject(home, options, listener)
    if options.wheels is not None:
        _fetch(home, subject, options.wheels, listener)
    match options.form:
        case "dockerfile":
            return _dockerfile(subject, options.output)
        case "sbom" | "spdx":
            return Exported(data=_bill(home, subject, options, listener))
        case _:
            return Exported(data=_text(home, subject, options).encode())


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported; the plan of a project is made when it is asked for."""

    name: str
    lock: Lock
    root: Path
    """Where the project's files are; for an image the current folder."""
    plan: Callable[[], BuildPlan]
    project: "Project | None" = None
    """None: an image."""


def _subject(home: Home, options: ExportOptions, listener: Listener) -> _Subject:
    path = Path(options.what).absolute()
    if not path.exists():
        return _of_image(home, options.what)
    root = path if path.is_dir() else path.parent
    asked = ProjectOptions(root=root, extras=options.extras, groups=options.groups, requirements=options.requirements)
    workshop = Workshop(home, asked, listener)
    whole = workshop.ready_lock(relock=False, locked=True) if path.is_dir() else read_lock(path)
    lock = for_accelerator(whole, options.accelerator or whole.target.accelerator)

    def plan() -> BuildPlan:
        check_fresh(whole, workshop.project)
        return workshop.plan(lock)

    project = workshop.project
    return _Subject(name=project.name, lock=lock, root=project.root, plan=plan, project=project)


def _of_image(home: Home, name: str) -> _Subject:
    store = Store(home)
    with store.using():
        image = store.images.load(store.images.resolve(name))
        lock, plan = store.referrers.lock_of(image.digest), store.referrers.plan_of(image.digest)
        short = name_of(store, image).rpartition("/")[2]
    if lock is None or plan is None:
        raise NotFoundError(
            f"{name} has no lock and plan attached, so nobody here knows what it was built from",
            hint="'mlbox sbom' says what is in it",
        )
    return _Subject(
        name=short,
        lock=decode_lock(lock, what=f"the lock of {name}"),
        root=Path.cwd(),
        plan=lambda: decode_plan(plan),
    )


def _text(home: Home, subject: _Subject, options: ExportOptions) -> str:
    here = options.output.absolute().parent if options.output else Path.cwd()
    match options.form:
        case "pylock":
            from mlbox.plan.export.pylock import pylock

            folder = _seen_from(here, options.wheels.absolute()) if options.wheels else "wheels"
            where = _near(here, _addresses(home, subject)) if options.urls else None
            return pylock(subject.lock, folder, _seen_from(here, subject.root), where)
        case "requirements":
            from mlbox.plan.export.requirements import requirements

            return requirements(subject.lock)
        case "environment.yml":
            from mlbox.plan.export.conda import environment_yml

            return environment_yml(subject.lock, subject.name)
        case _:
            from mlbox.plan.export.conda import conda_lock

            if not subject.lock.conda:
                raise LockError(
                    f"{subject.name} has no conda packages, and conda-lock.yml begins with them",
                    hint="'--format environment.yml' has its Python packages in a pip section",
                )
            return conda_lock(subject.lock, _addresses(home, subject))


def _addresses(home: Home, subject: _Subject) -> "Address":
    """Return what knows where files are, from this machine's configuration; without credentials."""
    from mlbox.http import Http, without_credentials
    from mlbox.lock.conda.channels import Channels
    from mlbox.lock.conda.model import split_url
    from mlbox.plan.export.requirements import pinned

    places = _places(home, subject, Http())
    spec = subject.project.conda if subject.project else None
    channels = Channels(spec.channels if spec else (), home=home)

    def address(package: Package | CondaPackage) -> str:
        if isinstance(package, CondaPackage):
            return "/".join(split_url(next(channels.urls(package))))
        if package.url:
            return pinned(package).rpartition(" ")[2]
        return without_credentials(next(places.urls(package)))

    return address


def _near(here: Path, address: "Address") -> "Address":
    """Return what names a file of a folder by its path from `here`, which may lead to it on another machine too."""

    def near(package: Package | CondaPackage) -> str:
        url = urlsplit(address(package))
        return _seen_from(here, Path(unquote(url.path))) if url.scheme == "file" else url.geturl()

    return near


def _places(home: Home, subject: _Subject, http: "Http") -> "Places":
    from mlbox.build.fetch import Places
    from mlbox.lock.python.config import indexes_for
    from mlbox.project.model import Project, Settings

    project = subject.project or Project(root=subject.root, name=subject.name, settings=Settings(), sources=())
    project = project.for_accelerator(subject.lock.target.accelerator)
    return Places(lambda: indexes_for(project), http, home=home, root=subject.root, target=subject.lock.target)


def _dockerfile(subject: _Subject, output: Path | None) -> Exported:
    from mlbox.plan.export.dockerfile import dockerfile, dockerignore

    plan = subject.plan()
    text = dockerfile(plan, subject.lock, _skeleton(plan), _installed(plan))
    # In the project, an earlier export is a file like others; in itself it is not, or it would never be the same again.
    name = _seen_from(subject.root, output.absolute()) if output else ""
    ignored = dockerignore(plan, without=(name, name + _IGNORE))
    return Exported(data=text.encode(), beside={_IGNORE: ignored.encode()})


def _skeleton(plan: BuildPlan) -> "list[Placed]":
    from mlbox.build.env import skeleton
    from mlbox.plan.export.instructions import Placed

    piece = next((piece for piece in _pieces(plan) if isinstance(piece, EnvPiece)), None)
    if piece is None:  # conda makes its own
        return []
    empty = skeleton(piece)
    return [
        *(Placed(path) for path in empty.folders),
        *(Placed(path, target=target) for path, target in empty.links.items()),
        *(Placed(path, data) for path, data in empty.files.items()),
    ]


def _installed(plan: BuildPlan) -> "list[Placed]":
    from mlbox.build.editable import editable_files
    from mlbox.plan.export.instructions import Placed

    mine = (piece for piece in _pieces(plan) if isinstance(piece, ProjectPiece))
    return [Placed(path, data, mode) for piece in mine for path, data, mode in editable_files(piece)]


def _pieces(plan: BuildPlan) -> Iterator[AnyPiece]:
    return (piece for layer in plan.layers for piece in layer.pieces)


def _bill(home: Home, subject: _Subject, options: ExportOptions, listener: Listener) -> bytes:
    from mlbox.engine.trust.materials import BillFormat, bill_writer, sbom
    from mlbox.trust.bill import bill_of_lock

    form = BillFormat.SPDX if options.form == "spdx" else BillFormat.CYCLONEDX
    if subject.project is None:
        return sbom(home, options.what, form, listener=listener)
    return bill_writer(form)[2](bill_of_lock(subject.lock, name=subject.name))


def _seen_from(folder: Path, path: Path) -> str:
    return "" if path == folder else Path(os.path.relpath(path, folder)).as_posix()


def _fetch(home: Home, subject: _Subject, folder: Path, listener: Listener) -> None:
    """Have the files of the locked Python packages in `folder`, and of what builds them.

    A checkout of a repository has none.
    """
    from mlbox.build.fetch import fetch_one
    from mlbox.http import Http

    http, artifacts = Http(), Store(home).artifacts
    places = _places(home, subject, http)
    packages = [one for one in (*subject.lock.packages, *subject.lock.build_packages) if one.sha256]
    listener.expect("fetch", sum(one.size for one in packages if not artifacts.has(one.sha256)))
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        files = pool.map(lambda one: fetch_one(places.wanted(one), artifacts, http, listener), packages)
        for package, file in zip(packages, files, strict=True):
            _copy(file, folder / package.filename)


def _copy(source: Path, target: Path) -> None:
    # A copy, no link: what is the user's may be changed, what is the store's may not.
    with disk_errors(f"writing {target}"), tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        try:
            with source.open("rb") as content:
                shutil.copyfileobj(content, file, CHUNK)
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink()
            raise
