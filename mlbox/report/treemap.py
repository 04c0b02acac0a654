"""A map of an image's bytes: one HTML file without any connection to the outside.

The layout is computed here, twice: for wide windows and for narrow ones. The script of the page only shows what is
in it. Names of packages and files come from strangers: they are escaped, and the page's policy runs no other script.
"""

import base64
import hashlib
import html
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

import msgspec

from mlbox.oci.digest import hex_of
from mlbox.report.contents import Contents
from mlbox.report.installed import PACKAGES, Owner
from mlbox.report.squarify import Rect, squarify
from mlbox.report.usage import LayerUsage, PackageUsage, Usage
from mlbox.units import mega

KINDS = {"python": "Python", "conda": "conda", "debian": "Debian", "project": "Project", "image": "Image"}
WIDE = Rect(0, 0, 1600, 900)
NARROW = Rect(0, 0, 600, 900)
_TINY = 0.0012
"""The smallest share of the image that gets a tile of its own."""
_DETAILED = 0.003
"""The smallest share whose files are shown."""
_LEAVES = 36
_OPENED = 0.04
"""The smallest share of a package that a folder must have to be opened."""
_FOLDER = Path(__file__).parent


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """A rectangle of the map and what it stands for."""

    name: str
    size: int
    about: str
    """Lines of the tooltip, separated by newlines."""
    parts: tuple[tuple[str, int], ...] = ()
    """What is in it: paths with their bytes, or packages."""
    rest: bool = False
    """Whether it stands for many packages that are too small for tiles of their own."""


def page(usage: Usage, contents: Contents) -> str:
    """Return the whole page."""
    groups = tiles_of(usage, contents)
    script = (_FOLDER / "treemap.js").read_text()
    # The hash admits this script and no other, whatever a name might smuggle in.
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    )
    return Template((_FOLDER / "treemap.html").read_text()).substitute(
        policy=policy,
        style=(_FOLDER / "treemap.css").read_text(),
        script=script,
        title=_text(usage.image),
        digest=_text(usage.digest),
        short=_text(hex_of(usage.digest)[:12]),
        summary=_text(_summary(usage)),
        legend="".join(_legend(usage)),
        map="".join(_map(groups)),
        data=_json(groups),
        packages="".join(_package_row(one) for one in usage.packages),
        layers="".join(_layer_row(one) for one in usage.layers),
        duplicates=_duplicates(usage),
    )


def tiles_of(usage: Usage, contents: Contents) -> dict[str, list[Tile]]:
    """Return the tiles of each kind of owner, the kind with most bytes first."""
    detailed = {Owner(one.kind, one.name, one.version) for one in usage.packages if one.share >= _DETAILED}
    files: defaultdict[Owner, list[tuple[str, int]]] = defaultdict(list)
    for owner, place in contents.held():
        if owner in detailed:
            files[owner].append((place.entry.path, place.entry.size))
    groups: dict[str, list[Tile]] = {}
    for kind in KINDS:
        mine = [one for one in usage.packages if one.kind == kind and one.size]
        large = [one for one in mine if one.share >= _TINY]
        tiny = [one for one in mine if one.share < _TINY]
        tiles = [_tile(one, files[Owner(one.kind, one.name, one.version)]) for one in large]
        if tiny:
            tiles.append(_rest(tiny, usage.content))
        if tiles:
            groups[kind] = tiles
    return dict(sorted(groups.items(), key=lambda item: -sum(tile.size for tile in item[1])))


def parts_of(files: Sequence[tuple[str, int]], most: int = _LEAVES) -> tuple[tuple[str, int], ...]:
    """Return at most `most` folders and files that together are all of `files`, the largest first.

    The largest folder is opened again and again while there is room; what is too small in it stays together.
    """
    total = sum(size for _, size in files)
    parts = {"": total}
    members: dict[str, list[tuple[str, int]]] = {"": list(files)}
    while members and (room := most - len(parts) + 1) > 1:
        folder = max(members, key=lambda name: (parts[name], name))
        if parts[folder] < _OPENED * total:
            break
        inside = _opened(folder, members.pop(folder))
        sizes = {name: sum(size for _, size in some) for name, some in inside.items()}
        ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
        kept = ordered if len(ordered) <= room else ordered[: max(1, room // 2)]
        del parts[folder]
        parts.update((name, sizes[name]) for name in kept)
        members.update((name, inside[name]) for name in kept if name.endswith("/") and name != folder)
        if left := ordered[len(kept) :]:
            parts[f"{folder}{len(left)} more"] = sum(sizes[name] for name in left)
    ordered = sorted(parts, key=lambda name: (-parts[name], name))
    return tuple((name, parts[name]) for name in ordered if parts[name])


def _opened(folder: str, members: Sequence[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
    """Return what lies directly in `folder`, with the files below each."""
    inside: dict[str, list[tuple[str, int]]] = {}
    for path, size in members:
        name, slash, _ = path[len(folder) :].partition("/")
        inside.setdefault(f"{folder}{name}{slash}", []).append((path, size))
    return inside


def _tile(one: PackageUsage, files: Sequence[tuple[str, int]]) -> Tile:
    about = [
        f"{one.name} {one.version}".strip(),
        f"{mega(one.size)}, {_percent(one.share)} of the image",
        f"{KINDS[one.kind]}, {one.files} files",
        f"in {', '.join(one.layers)}",
    ]
    return Tile(name=one.name, size=one.size, about="\n".join(about), parts=parts_of(files) if files else ())


def _rest(tiny: Sequence[PackageUsage], total: int) -> Tile:
    size = sum(one.size for one in tiny)
    about = f"{len(tiny)} smaller packages\n{mega(size)}, {_percent(size / max(1, total))} of the image"
    shown = tuple((f"{one.name} {one.version}".strip(), one.size) for one in tiny[: 2 * _LEAVES])
    left = sum(one.size for one in tiny[2 * _LEAVES :])
    parts = (*shown, (f"{len(tiny) - len(shown)} more", left)) if left else shown
    return Tile(name=f"{len(tiny)} smaller", size=size, about=about, parts=parts, rest=True)


def _map(groups: dict[str, list[Tile]]) -> Iterator[str]:
    sizes = [sum(tile.size for tile in tiles) for tiles in groups.values()]
    number = 0
    for (kind, tiles), size, wide, narrow in zip(
        groups.items(), sizes, squarify(sizes, WIDE), squarify(sizes, NARROW), strict=True
    ):
        yield f'<section class="g {kind}" style="{_place(wide, WIDE)};{_place(narrow, NARROW, "n")}">'
        yield f'<h3><span>{KINDS[kind]}</span> {_text(mega(size))}</h3><div class="in">'
        inside = [tile.size for tile in tiles]
        both = squarify(inside, Rect(0, 0, wide.w, wide.h)), squarify(inside, Rect(0, 0, narrow.w, narrow.h))
        for tile, one, two in zip(tiles, *both, strict=True):
            style = f"{_place(one, wide)};{_place(two, narrow, 'n')}"
            label = _text(tile.about.replace("\n", ", "))
            yield (
                f'<button class="t{" rest" if tile.rest else ""}" data-i="{number}"'
                f' style="{style}" aria-label="{label}">'
                f"<b>{_text(tile.name)}</b><i>{_text(mega(tile.size))}</i></button>"
            )
            number += 1
        yield "</div></section>"


def _place(rect: Rect, room: Rect, prefix: str = "w") -> str:
    """Return the custom properties that put `rect` into a box of the proportions of `room`, in percent of it."""
    width, height = room.w or 1, room.h or 1
    values = (100 * rect.x / width, 100 * rect.y / height, 100 * rect.w / width, 100 * rect.h / height)
    return ";".join(f"--{prefix}{name}:{value:.3f}%" for name, value in zip("xywh", values, strict=True))


def _json(groups: dict[str, list[Tile]]) -> str:
    """Return what the script shows when a tile is opened: name, tooltip, parts with both of their places."""
    tiles = []
    for kind, group in groups.items():
        for tile in group:
            sizes = [size for _, size in tile.parts]
            both = squarify(sizes, WIDE), squarify(sizes, NARROW)
            parts = [
                (name, mega(size), *_percents(one, WIDE), *_percents(two, NARROW))
                for (name, size), one, two in zip(tile.parts, *both, strict=True)
            ]
            tiles.append({"kind": kind, "name": tile.name, "about": tile.about, "parts": parts, "rest": tile.rest})
    text = msgspec.json.encode(_clean(tiles)).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _percents(rect: Rect, room: Rect) -> tuple[float, ...]:
    values = (rect.x / room.w, rect.y / room.h, rect.w / room.w, rect.h / room.h)
    return tuple(round(100 * value, 2) for value in values)


def _clean(value: object) -> object:
    """Return `value` with names that are not UTF-8 made readable: JSON holds nothing else."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list | tuple) else value


def _summary(usage: Usage) -> str:
    packages = sum(one.kind in PACKAGES for one in usage.packages)
    files = sum(one.files for one in usage.layers)
    return f"{mega(usage.content)} in {files:,} files, {packages} packages, {len(usage.layers)} layers"


def _legend(usage: Usage) -> Iterator[str]:
    for kind, name in KINDS.items():
        size = sum(one.size for one in usage.packages if one.kind == kind)
        if size:
            share = _percent(size / max(1, usage.content))
            yield f'<li class="{kind}"><b>{name}</b> {_text(mega(size))} <span>{_text(share)}</span></li>'


def _package_row(one: PackageUsage) -> str:
    return (
        f'<tr class="{one.kind}"><td data-v="{KINDS[one.kind]}"><span class="k">{KINDS[one.kind]}</span></td>'
        f'<th scope="row">{_text(one.name)}</th><td class="v">{_text(one.version)}</td>'
        f"<td>{_text(', '.join(one.layers))}</td>"
        f'<td class="r" data-v="{one.files}">{one.files:,}</td><td class="r" data-v="{one.size}">{mega(one.size)}</td>'
        f'<td class="s" data-v="{one.size}">{_bar(one.share)}</td></tr>'
    )


def _layer_row(one: LayerUsage) -> str:
    return (
        f'<tr><td class="r">{one.number}</td><th scope="row">{_text(one.name)}</th>'
        f'<td class="v">{_text(hex_of(one.diff_id)[:12])}</td><td class="r">{one.packages}</td>'
        f'<td class="r">{one.files:,}</td><td class="r">{mega(one.content)}</td>'
        f'<td class="s">{_bar(one.share)}</td></tr>'
    )


def _bar(share: float) -> str:
    return f'<span class="bar"><i style="width:{100 * share:.2f}%"></i></span>{_text(_percent(share))}'


def _duplicates(usage: Usage) -> str:
    if not usage.duplicates:
        return "<p>No large file is in two packages.</p>"
    wasted = mega(sum(one.wasted for one in usage.duplicates))
    rows = []
    for one in usage.duplicates[:50]:
        copies = "".join(f"<li><code>/{_text(copy.path)}</code> {_text(copy.package)}</li>" for copy in one.copies[:20])
        rows.append(f"<li><b>{len(one.copies)} &times; {mega(one.size)}</b><ul>{copies}</ul></li>")
    return f'<p>Equal files of different packages: {wasted} could be saved.</p><ul class="d">{"".join(rows)}</ul>'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or not share else "< 0.1 %"


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode(), quote=True)
