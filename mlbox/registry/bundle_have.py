"""The list of what a store has: what a bundle for it can leave out. Text, one item a line, sorted.

    mlbox-have 1
    artifact HEX    a wheel, .deb or sdist, by its sha256
    layer HEX       by its diffID
    piece HEX       an unpacked file, by its key

It carries hashes and nothing else, and may be written down by anybody: what it claims is checked where it matters,
by the store that loads the bundle.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mlbox.errors import ArchiveError
from mlbox.oci.digest import DiffID, hex_of
from mlbox.registry.bundle import Contents
from mlbox.store.store import Store

FIRST_LINE = "mlbox-have 1"
LIMIT = 32 << 20
"""The largest list that is read, in bytes: some 400,000 items."""
_LINE = re.compile(r"(artifact|layer|piece) ([0-9a-f]{64})")
_HINT = "'mlbox bundle have -o FILE' on the receiving machine writes the list"


class Have(msgspec.Struct, frozen=True, kw_only=True):
    """What a store has."""

    layers: frozenset[DiffID] = frozenset()
    artifacts: frozenset[str] = frozenset()
    """sha256 (hex)."""
    pieces: frozenset[str] = frozenset()
    """Keys (hex)."""

    def __or__(self, other: "Have") -> "Have":
        """Return what either has."""
        return Have(
            layers=self.layers | other.layers,
            artifacts=self.artifacts | other.artifacts,
            pieces=self.pieces | other.pieces,
        )


NOTHING = Have()


def have_of(store: Store) -> Have:
    """Return what `store` has now."""
    return Have(
        layers=frozenset(store.layers.diff_ids()),
        artifacts=frozenset(store.artifacts.hashes()),
        pieces=frozenset(store.pieces.keys()),
    )


def render_have(have: Have) -> str:
    """Return the list as text; equal stores make equal lists."""
    lines = [
        FIRST_LINE,
        *_lines("artifact", have.artifacts),
        *_lines("layer", (hex_of(layer) for layer in have.layers)),
        *_lines("piece", have.pieces),
    ]
    return "\n".join(lines) + "\n"


def read_have(path: Path) -> Have:
    """Read a list from a file; ArchiveError when it is none, or larger than any store makes."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as problem:
        raise ArchiveError(f"cannot read {path}: {problem.strerror}", hint=_HINT) from problem
    if len(data) > LIMIT:
        raise ArchiveError(f"{path}: larger than {LIMIT} bytes", hint=_HINT)
    return parse_have(data, str(path))


def parse_have(data: bytes, what: str) -> Have:
    """Return the list that `data` is; ArchiveError naming `what` and the line when it is none."""
    first, *lines = data.decode("ascii", "replace").splitlines() or [""]
    if first != FIRST_LINE:
        newer = first.startswith("mlbox-have ")
        raise ArchiveError(f"{what}: {'a list of a newer mlbox' if newer else 'no list of a store'}", hint=_HINT)
    found: dict[str, set[str]] = {"artifact": set(), "layer": set(), "piece": set()}
    for number, line in enumerate(lines, 2):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ArchiveError(f"{what}:{number}: not an item: {line[:80]!r}", hint=_HINT)
        found[match[1]].add(match[2])
    return Have(
        layers=frozenset(DiffID(f"sha256:{item}") for item in found["layer"]),
        artifacts=frozenset(found["artifact"]),
        pieces=frozenset(found["piece"]),
    )


def given_by(contents: Contents) -> Have:
    """Return what a store has that has loaded a bundle of these `contents`."""
    return Have(
        layers=frozenset(layer.diff_id for layer in contents.layers),
        artifacts=frozenset(hex_of(file.digest) for file in contents.files),
        pieces=frozenset(contents.pieces),
    )


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What a delta takes for there, and a store does not have."""

    layers: tuple[str, ...] = ()
    """Names with the beginning of their diffIDs."""
    files: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.layers or self.files or self.pieces)

    def __str__(self) -> str:
        """Return it for people; of many things the first few."""
        said = [("layer", self.layers), ("file", self.files), ("unpacked package", self.pieces)]
        return "; ".join(
            f"{len(items)} {what}{'s' if len(items) > 1 else ''}: {', '.join(items[:3])}{', …' if items[3:] else ''}"
            for what, items in said
            if items
        )


def missing_from(have: Have, contents: Contents) -> Missing:
    """Return what a store that has `have` lacks to load a bundle of these `contents`."""
    return Missing(
        layers=tuple(
            f"{layer.name} ({hex_of(layer.diff_id)[:12]})"
            for layer in contents.layers
            if layer.way == "there" and layer.diff_id not in have.layers
        ),
        files=tuple(
            file.filename for file in contents.files if file.there and hex_of(file.digest) not in have.artifacts
        ),
        pieces=tuple(piece[:12] for piece in contents.pieces if piece not in have.pieces),
    )


def _lines(kind: str, items: Iterable[str]) -> list[str]:
    return [f"{kind} {item}" for item in sorted(items)]
