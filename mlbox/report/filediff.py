"""Which files a container sees otherwise in one image than in another."""

import os
from collections.abc import Iterator
from typing import Literal

import msgspec

from mlbox.errors import StoreError
from mlbox.files import CHUNK
from mlbox.report.contents import Contents
from mlbox.store.store import Store
from mlbox.store.tree import below
from mlbox.store.view import Place


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a container of one image sees otherwise in the other."""

    what: Literal["added", "removed", "changed"]
    path: str
    detail: str
    """What changed: 'content', 'mode 644 -> 755', 'target ...', 'time', joined by commas."""
    old_size: int
    new_size: int


def diff_files(store: Store, old: Contents, new: Contents) -> Iterator[FileChange]:
    """Yield what differs, by path; directories count only where the other image has something else.

    A layer that both have is equal without a look, and so is a file that both layers have as the same hard link.
    """
    for path in sorted(old.files.keys() | new.files.keys()):
        was, now = old.files.get(path), new.files.get(path)
        if was is None or now is None:
            here = was or now
            if here is not None and here.entry.kind != "dir":
                sizes = (was.entry.size if was else 0, now.entry.size if now else 0)
                yield _change("removed" if was else "added", path, "", *sizes)
        elif old.layers[was.layer].diff_id == new.layers[now.layer].diff_id:
            continue
        elif detail := ", ".join(_details(store, old, new, was, now)):
            yield _change("changed", path, detail, was.entry.size, now.entry.size)


def _change(what: Literal["added", "removed", "changed"], path: str, detail: str, old: int, new: int) -> FileChange:
    return FileChange(what=what, path=f"/{path}", detail=detail, old_size=old, new_size=new)


def _details(store: Store, old: Contents, new: Contents, was: Place, now: Place) -> Iterator[str]:
    one, two = was.entry, now.entry
    if one.kind != two.kind:
        yield f"{one.kind} -> {two.kind}"
        return
    if one.target != two.target:
        yield f"target {one.target} -> {two.target}"
    if one.kind in ("file", "link") and (one.size != two.size or _other_content(store, old, new, was, now)):
        yield "content"
    if one.mode != two.mode:
        yield f"mode {one.mode:o} -> {two.mode:o}"
    if (one.uid, one.gid) != (two.uid, two.gid):
        yield f"owner {one.uid}:{one.gid} -> {two.uid}:{two.gid}"
    if one.mtime != two.mtime and one.kind != "dir":
        yield "time"


def _other_content(store: Store, old: Contents, new: Contents, was: Place, now: Place) -> bool:
    paths = (
        below(store.layers.root(contents.layers[place.layer].diff_id))(place.entry)
        for contents, place in ((old, was), (new, now))
    )
    fds: list[int] = []
    try:
        fds += (os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC) for path in paths)
        if os.path.samestat(os.fstat(fds[0]), os.fstat(fds[1])):
            return False
        while (data := os.read(fds[0], CHUNK)) == os.read(fds[1], CHUNK):
            if not data:
                return False
    except OSError as problem:
        raise StoreError(
            f"{problem.filename or was.entry.path} cannot be read: {problem.strerror}",
            hint="run 'mlbox fsck --repair'",
        ) from problem
    else:
        return True
    finally:
        for fd in fds:
            os.close(fd)
