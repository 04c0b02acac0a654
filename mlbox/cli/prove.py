"""Commands that explain images and prove them: verify, diff, why, du."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mlbox.cli.home import ImageName, default_store, meant
from mlbox.cli.progress import listener
from mlbox.cli.render import Format, print_json
from mlbox.cli.words import App, Argument, Option

if TYPE_CHECKING:
    from mlbox.lock.model import Lock
    from mlbox.report.why import WhyFile, WhyPackage

app = App()

Form = Annotated[Format, Option("--format")]


@app.command()
def verify(
    target: Annotated[str, Argument(metavar="IMAGE|LOCK", help="An image, or a project's mlbox.lock or folder.")],
    image: Annotated[str, Argument(metavar="[IMAGE]", help="With LOCK; else the project's own name.")] = "",
    folder: Annotated[
        Path | None, Option("-C", "--project", help="Compare with the lock and the files in this folder.")
    ] = None,
    layer: Annotated[str, Option(help="Only this layer: its number (1 is the lowest) or name.")] = "",
    key: Annotated[Path | None, Option(help="A public key that must have signed the image.")] = None,
    form: Form = Format.TABLE,
) -> int:
    """Make an image again from its lock in a scratch store and compare every byte."""
    from mlbox.cli.prove_text import print_verification
    from mlbox.engine.verifying import verify
    from mlbox.paths import Home

    with listener() as talk:
        name, project = _what_to_verify(target, image, folder)
        found = verify(Home.default(), talk, name=name, project=project, layer=layer, key=key)
    if form is Format.JSON:
        print_json(found)
    else:
        print_verification(found)
    return 0 if found.ok else 1


@app.command()
def diff(
    first: Annotated[str, Argument(metavar="A", help="An image, or a lock file.")],
    second: Annotated[str, Argument(metavar="B", help="An image, or a lock file.")],
    files: Annotated[bool, Option("--files", help="List every file that differs.")] = False,
    form: Form = Format.TABLE,
) -> None:
    """Say what differs between two images, or between two locks."""
    from mlbox.cli.prove_text import print_diff
    from mlbox.lock.diff import diff_locks, render_diff
    from mlbox.report.diff import diff_images
    from mlbox.report.load import load_side

    if _is_lock(first) or _is_lock(second):
        locks = diff_locks(_lock(first), _lock(second))
        if form is Format.JSON:
            print_json(locks)
        for line in render_diff(locks) if form is Format.TABLE else ():
            print(line)
        return
    store = default_store()
    with store.using():
        found = diff_images(store, *(load_side(store, meant(store, name)) for name in (first, second)))
    if form is Format.JSON:
        print_json(found)
    else:
        print_diff(found, files=files)


@app.command()
def why(
    what: Annotated[list[str], Argument(metavar="IMAGE PACKAGE|/FILE", help="With --lock: only PACKAGE.")],
    lock: Annotated[Path | None, Option(help="Explain from a lock, without an image.")] = None,
    form: Form = Format.TABLE,
) -> None:
    """Say who asked for a package, which layer it is in, and what it costs; or whose a file is."""
    from mlbox.cli.prove_text import print_why, print_why_file
    from mlbox.report.why import WhyPackage

    found = _explained(what, lock)
    if form is Format.JSON:
        print_json(found)
    elif isinstance(found, WhyPackage):
        print_why(found)
    else:
        print_why_file(found)


@app.command()
def du(
    name: ImageName,
    html: Annotated[Path | None, Option(metavar="FILE", help="Write a map of it, one HTML file.")] = None,
    every: Annotated[bool, Option("--all", "-a", help="Also the small packages.")] = False,
    form: Form = Format.TABLE,
) -> None:
    """Show which packages and layers of an image take how many bytes."""
    from mlbox.cli.prove_text import print_usage
    from mlbox.files import write_output
    from mlbox.report.load import load_side
    from mlbox.report.usage import usage_of

    store = default_store()
    with store.using():
        contents = load_side(store, meant(store, name)).contents
        usage = usage_of(store, contents)
    if html is not None:
        from mlbox.report.treemap import page

        write_output(html, page(usage, contents).encode("utf-8", "replace"))
    if form is Format.JSON:
        print_json(usage)
    elif html is None:
        print_usage(usage, every=every)


def _is_lock(text: str) -> bool:
    return text.endswith((".lock", ".toml")) and Path(text).is_file()


def _lock(text: str) -> "Lock":
    from mlbox.errors import NotFoundError
    from mlbox.lock.file import decode_lock, read_lock

    if _is_lock(text):
        return read_lock(Path(text))
    store = default_store()
    data = store.referrers.lock_of(store.images.resolve(meant(store, text)))
    if data is None:
        raise NotFoundError(f"{text} has no lock attached", hint="give two images, or two lock files")
    return decode_lock(data, what=f"the lock of {text}")


def _what_to_verify(target: str, image: str, folder: Path | None) -> tuple[str, Path | None]:
    """Return the image's name (empty: the project's own) and the project's folder, None for what is attached."""
    from mlbox.errors import UsageError
    from mlbox.lock.file import FILENAME

    path = Path(target).absolute()
    if path.is_dir() and (path / FILENAME).is_file():
        return image, path
    if path.is_file() and (path.name == FILENAME or target.endswith(".lock")):
        if path.name != FILENAME:
            raise UsageError(f"{target}: a project's lock is called {FILENAME}", hint=f"rename it to {FILENAME}")
        return image, path.parent
    if image:
        raise UsageError(f"{target} is no lock and no project", hint=f"mlbox verify {FILENAME} {image}")
    return target, folder.absolute() if folder else None


def _explained(what: list[str], lock: Path | None) -> "WhyPackage | WhyFile":
    from mlbox.errors import UsageError
    from mlbox.lock.accelerators import accelerator_with, for_accelerator
    from mlbox.lock.file import read_lock
    from mlbox.report.load import load_side, other_images
    from mlbox.report.why import why_file, why_locked, why_package

    if len(what) != (1 if lock else 2):
        raise UsageError("why of what?", hint="mlbox why IMAGE numpy, IMAGE /usr/bin/git, or --lock mlbox.lock numpy")
    if lock:
        whole = read_lock(lock)
        one = accelerator_with(whole, what[0])
        where = f"{lock} ({one})" if whole.accelerators else str(lock)
        return why_locked(for_accelerator(whole, one), what[0], what=where)
    store = default_store()
    with store.using():
        side = load_side(store, meant(store, what[0]))
        if what[1].startswith("/"):
            return why_file(side.contents, what[1])
        return why_package(side.contents, side.lock, what[1], other_images(store, side.image.digest))
