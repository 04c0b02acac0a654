"""What verify, diff, why and du print for people."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlbox.cli.render import mega, print_table, shown, shown_lines

if TYPE_CHECKING:
    from mlbox.engine.verifying import LayerCheck, Verification
    from mlbox.engine.wheels import Rebuilt
    from mlbox.report.diff import ImageDiff, LayerChange, PackageChange
    from mlbox.report.treediff import Difference
    from mlbox.report.usage import Usage
    from mlbox.report.why import WhyFile, WhyPackage

_SHORT = slice(len("sha256:"), len("sha256:") + 12)
_FILES = 10
_CHAINS = 8
_NAMES = 8
_PACKAGES = 25
_DUPLICATES = 5
_KINDS = {"python": "Python", "conda": "conda", "debian": "Debian", "project": "project", "image": "image"}


def _say(text: str) -> None:
    """Print a line: names of files and packages are the words of strangers."""
    print(shown(text))


def print_verification(found: "Verification") -> None:
    """Print a line per layer, then everything that differs."""
    rows = [
        (str(layer.number), layer.name, layer.diff_id[_SHORT], layer.rebuilt[_SHORT] or "-", layer.state)
        for layer in found.layers
    ]
    print_table(("", "LAYER", "IMAGE", "MADE AGAIN", "STATE"), rows)
    for layer in found.layers:
        for line in _layer_lines(layer):
            print(shown_lines(line))  # why a build failed may take several
    for problem in found.problems:
        _say(f"problem: {problem}")
    for note in found.notes:
        _say(f"note: {note}")
    _say(f"{found.image} {found.digest}: {_verdict(found)} (made again from {found.basis})")


def print_rebuilt(found: "Rebuilt") -> None:
    """Print how a second build of a package differs from the first."""
    if found.equal:
        _say(f"{found.name} {found.version}: built once more, the same files")
        return
    count = f"{len(found.differences)}{' or more' if found.more else ''}"
    _say(f"{found.name} {found.version}: NOT REPRODUCIBLE, {count} files differ from the first build")
    for one in found.differences[:_FILES]:
        _say(f"  {_difference(one)}")


def _verdict(found: "Verification") -> str:
    states = {layer.state for layer in found.layers} | {found.config, found.manifest}
    if states & {"different", "changed on disk"}:
        return "NOT EQUAL"
    if "not checked" in states:
        return "NOT PROVEN: not all of it could be made again"
    part = "equal" if found.manifest == "equal" else "equal as far as asked"
    return f"{part}, BUT NOT ALL WELL: {'; '.join(found.problems)}" if found.problems else part


def _layer_lines(layer: "LayerCheck") -> Iterator[str]:
    if layer.state == "equal":
        return
    yield f"layer {layer.number} {layer.name}: {layer.state}{layer.reason and f' ({layer.reason})'}"
    yield from (f"  {shown(_difference(one))}" for one in layer.differences[:_FILES])
    left = len(layer.differences) - _FILES
    if left > 0:
        yield f"  and {left}{' or more' if layer.more else ''} more files"
    if layer.state == "changed on disk":
        yield "  the image is what the lock says, its files in this store are not: 'mlbox fsck --deep --repair' removes"
        yield "  them, and the image with them; then 'mlbox build' or 'mlbox pull' makes it again"


def _difference(one: "Difference") -> str:
    where = f"/{one.path}" + (f" of {one.piece}" if one.piece else "")
    match one.what:
        case "extra":
            return f"{where}: a {one.found} that should not be there"
        case "missing":
            return f"{where}: missing"
        case "content" | "size" if one.offset >= 0:
            return f"{where}: from byte {one.offset} on {one.found}, not {one.expected}"
        case _:
            return f"{where}: {one.what} {one.found}, not {one.expected}"


def print_diff(found: "ImageDiff", *, files: bool) -> None:
    """Print what differs, most important first."""
    if found.old_digest == found.new_digest:
        _say(f"the same image: {found.old_digest}")
        return
    _section("packages", [_package_row(change) for change in found.packages])
    _section("config", [("~", one.field, f"{one.old or '-'} -> {one.new or '-'}") for one in found.config])
    settings = [one for one in found.lock if one.kind not in ("package", "deb", "layer")]
    _section("lock", [("~", f"{one.kind} {one.name}", f"{one.old or '-'} -> {one.new or '-'}") for one in settings])
    _section("layers", [_layer_row(change) for change in found.layers])
    kinds = {what: [one for one in found.files if one.what == what] for what in ("added", "removed", "changed")}
    counts = (f"{len(some)} {what}" for what, some in kinds.items())
    _say(f"files: {', '.join(counts)}")
    for one in found.files if files else ():
        sign = {"added": "+", "removed": "-", "changed": "~"}[one.what]
        _say(f"  {sign} {one.path}{one.detail and f' ({one.detail})'}")
    change = found.new_size - found.old_size
    _say(f"size: {mega(found.old_size)} -> {mega(found.new_size)} ({_signed(change)})")


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    rows = [tuple(map(shown, row)) for row in rows]
    _say(f"{title}:")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        _say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _package_row(one: "PackageChange") -> tuple[str, ...]:
    sign = {"added": "+", "removed": "-", "changed": "~"}[one.what]
    versions = (
        one.old if one.old == one.new else f"{one.old} -> {one.new}" if one.what == "changed" else one.old + one.new
    )
    line = f"mlbox.lock:{one.lock_line}" if one.lock_line else ""
    return sign, one.name, versions, _KINDS[one.kind], _signed(one.size), line, one.cause


def _layer_row(one: "LayerChange") -> tuple[str, ...]:
    sign = {"added": "+", "removed": "-", "changed": "~", "shared": "="}[one.what]
    if one.what == "shared":
        return sign, one.name, mega(one.new_size), one.new[_SHORT], "in both"
    sizes = " -> ".join(mega(size) for size, there in ((one.old_size, one.old), (one.new_size, one.new)) if there)
    ids = " -> ".join(diff_id[_SHORT] for diff_id in (one.old, one.new) if diff_id)
    return sign, one.name, sizes, ids, ""


def print_why(found: "WhyPackage") -> None:
    """Print who asked for a package, where it is, and what it costs."""
    _say(f"{found.name} {found.version} ({_KINDS[found.kind]})".replace("  ", " "))
    for chain in found.chains[:_CHAINS]:
        _say(f"  asked for by {' > '.join(chain)}")
    if len(found.chains) > _CHAINS or found.more_chains:
        _say(f"  and in {len(found.chains) - _CHAINS}{' or more' if found.more_chains else ''} other ways")
    if found.required_by:
        _say(f"  needed directly by {_some(found.required_by)}")
    elif not found.chains and found.kind in ("python", "conda", "debian"):
        _say("  nothing in the image asks for it")
    if found.artifact:
        how = "a folder of the project" if found.artifact.startswith("./") else f"{mega(found.size)} to download"
        _say(f"  {found.artifact}, {how}")
        return
    _say(f"  {mega(found.size)} in {found.files} files")
    for home in found.layers:
        _say(f"  layer {home.number} {home.layer} ({home.diff_id[_SHORT]}): {mega(home.size)}{_because(home.reason)}")
        if home.shared_with:
            _say(f"    the layer is also in {_some(home.shared_with)}")
    for file in found.largest:
        _say(f"  {mega(file.size):>9}  {file.path}")


def _some(names: Sequence[str]) -> str:
    left = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {left} more" if left > 0 else "")


def _because(reason: str) -> str:
    return f"; {reason}" if reason else ""


def print_why_file(found: "WhyFile") -> None:
    """Print whose a file is."""
    target = f" -> {found.target}" if found.target else ""
    _say(f"{found.path}{target} ({found.kind}, {mega(found.size)})")
    if found.kind == "dir":
        _say(f"  has files of {_some(found.owners) or 'nobody'}")
    else:
        _say(f"  from {', '.join(found.owners)}")
    _say(f"  layer {found.number} {found.layer} ({found.diff_id[_SHORT]})")
    if found.below:
        _say(f"  hides the file of the same name in {', '.join(found.below)}")


def print_usage(found: "Usage", *, every: bool) -> None:
    """Print packages and layers with their bytes, and what is there twice."""
    listed = found.packages if every else found.packages[:_PACKAGES]
    rows = [
        (mega(one.size), _percent(one.share), _KINDS[one.kind], one.name, one.version, ", ".join(one.layers))
        for one in listed
    ]
    if left := found.packages[len(listed) :]:
        size = sum(one.size for one in left)
        rows.append((mega(size), _percent(size / max(1, found.content)), "", f"{len(left)} more (--all)", "", ""))
    print_table(("SIZE", "SHARE", "KIND", "PACKAGE", "VERSION", "LAYER"), rows)
    print()
    layers = [
        (str(one.number), mega(one.content), _percent(one.share), str(one.files), str(one.packages), one.name)
        for one in found.layers
    ]
    print_table(("", "SIZE", "SHARE", "FILES", "PACKAGES", "LAYER"), layers)
    if found.duplicates:
        print()
        _say(f"there more than once: {mega(sum(one.wasted for one in found.duplicates))} could be saved")
        for one in found.duplicates[:_DUPLICATES]:
            _say(f"  {len(one.copies)} x {mega(one.size)}")
            for copy in one.copies[:_DUPLICATES]:
                _say(f"    /{copy.path} of {copy.package}")
    print()
    _say(f"{found.image}: {mega(found.content)} of files in {len(found.layers)} layers")


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _signed(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{mega(abs(size))}"
