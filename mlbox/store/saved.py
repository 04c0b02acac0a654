"""A tree in its folder: fs/ holds the files, `entries` the tree's entries, `record.json` what it is."""

import re
from pathlib import Path

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import StoreError
from mlbox.oci.layer import Entry, encoded

FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{64}")
_DAMAGED = "run 'mlbox fsck --repair', then build again"

Odd = dict[int, tuple[bytes, bytes]]
"""Path and target of the entries that are not UTF-8, by position; msgpack strings must be."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a saved tree is."""

    format: int = FORMAT
    key: str
    label: str
    diff_id: str = ""
    size: int = 0
    """Of a layer: bytes of its tar."""
    pieces: tuple[str, ...] = ()
    """Of a layer: keys of the pieces it was made of."""
    frames: bool = False
    """Of a layer that others made: its tar is made again from frames, not from its entries."""
    omitted: tuple[str, ...] = ()
    """Of such a layer: what is in its tar and could not be on the disk, the first hundred."""


def saved_path(root: Path, key: str) -> Path:
    """Return the folder for `key` below `root`; a key that is not 64 hex digits raises StoreError."""
    if not _KEY.fullmatch(key):
        raise StoreError(f"not a key: {key[:100]!r}")
    return root / key


def save(folder: Path, record: Record, entries: tuple[Entry, ...]) -> None:
    """Write what lies beside `folder`/fs."""
    (folder / "entries").write_bytes(pack_entries(entries))
    (folder / "record.json").write_bytes(canonical_json(record))


def load_record(folder: Path) -> Record | None:
    """Return the record of a saved tree, None when there is no such folder."""
    path = folder / "record.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return decode_json(data, Record, what=str(path), error=StoreError)


def load_entries(folder: Path) -> tuple[Entry, ...]:
    """Return the entries of a saved tree."""
    path = folder / "entries"
    try:
        return unpack_entries(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise StoreError(f"{path}: {problem}", hint=_DAMAGED) from problem


def pack_entries(entries: tuple[Entry, ...]) -> bytes:
    """Return `entries` as bytes."""
    try:
        return msgspec.msgpack.encode((entries, {}))
    except UnicodeEncodeError:
        odd: Odd = {i: (encoded(e.path), encoded(e.target)) for i, e in enumerate(entries) if _is_odd(e)}
        plain = [msgspec.structs.replace(e, path="", target="") if i in odd else e for i, e in enumerate(entries)]
        return msgspec.msgpack.encode((plain, odd))


def unpack_entries(data: bytes) -> tuple[Entry, ...]:
    """Return the entries that `pack_entries` wrote."""
    entries, odd = msgspec.msgpack.decode(data, type=tuple[tuple[Entry, ...], Odd])
    if not odd:
        return entries
    return tuple(_with_names(e, *odd[i]) if i in odd else e for i, e in enumerate(entries))


def _is_odd(entry: Entry) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in entry.path + entry.target)


def _with_names(entry: Entry, path: bytes, target: bytes) -> Entry:
    return msgspec.structs.replace(
        entry, path=path.decode("utf-8", "surrogateescape"), target=target.decode("utf-8", "surrogateescape")
    )
