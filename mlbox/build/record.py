"""RECORD files: the list of a distribution's files with their hashes (PEP 376, PEP 427)."""

import base64
import binascii
import csv
import hashlib
import io
from collections.abc import Iterable
from typing import NamedTuple

from mlbox.errors import ArchiveError

_ALGORITHMS = {"sha256": 32, "sha384": 48, "sha512": 64}
_HINT = "the wheel contradicts itself: pin another version, or ask its authors for a corrected one"


class Row(NamedTuple):
    """A line of RECORD; `hash` reads 'sha256=...', both it and `size` may be empty."""

    path: str
    hash: str
    size: str


def row_for(path: str, data: bytes) -> Row:
    """Return the line for a file with content `data`."""
    return row_of(path, hashlib.sha256(data).digest(), len(data))


def row_of(path: str, sha256: bytes, size: int) -> Row:
    """Return the line for a file whose hash and size are known."""
    return Row(path, "sha256=" + base64.urlsafe_b64encode(sha256).rstrip(b"=").decode(), str(size))


def read_record(data: bytes, archive: str) -> dict[str, Row]:
    """Parse a wheel's RECORD; a path that stands twice with different hashes raises ArchiveError."""
    rows: dict[str, Row] = {}
    try:
        for cells in csv.reader(io.StringIO(data.decode("utf-8"), newline="")):
            if not cells:
                continue
            row = Row(*(*cells, "", "")[:3])
            if rows.setdefault(row.path, row) != row:
                raise ArchiveError(f"{archive}: RECORD has two different lines for {row.path!r}", hint=_HINT)
    except (csv.Error, UnicodeDecodeError) as problem:
        raise ArchiveError(f"{archive}: RECORD cannot be read: {problem}", hint=_HINT) from problem
    return rows


def write_record(rows: Iterable[Row]) -> bytes:
    """Return the RECORD of `rows`: sorted and with CRLF line ends, as pip writes it."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(sorted(rows))
    return out.getvalue().encode()


def expected_hash(row: Row, archive: str) -> tuple[str, bytes]:
    """Return algorithm and digest that `row` promises, ('', b'') when it promises none."""
    if not row.hash:
        return "", b""
    algorithm, _, text = row.hash.partition("=")
    if algorithm not in _ALGORITHMS:
        raise ArchiveError(f"{archive}: RECORD hashes {row.path!r} with {algorithm[:20]!r}, not sha256", hint=_HINT)
    try:
        digest = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != _ALGORITHMS[algorithm]:
        raise ArchiveError(f"{archive}: RECORD's hash of {row.path!r} is not a {algorithm}", hint=_HINT)
    return algorithm, digest


def check_rows(rows: dict[str, Row], members: Iterable[str], unhashed: Iterable[str], archive: str) -> None:
    """Raise ArchiveError unless `rows` list exactly `members`; `unhashed` may be missing, folders are ignored."""
    present = set(members)
    listed = {path for path in rows if not path.endswith("/")}
    if unlisted := present - listed - set(unhashed):
        are = "is" if len(unlisted) == 1 else "are"
        raise ArchiveError(f"{archive}: {_some(unlisted)} {are} not listed in its RECORD", hint=_HINT)
    if absent := listed - present:
        raise ArchiveError(f"{archive}: RECORD lists {_some(absent)}, which it does not hold", hint=_HINT)


def _some(paths: set[str]) -> str:
    return repr(min(paths)) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
