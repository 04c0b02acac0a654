"""Installs the project, and folders of it, as pip's editable installs do: metadata, a .pth to the source, scripts."""

from collections.abc import Iterator

from mlbox.build.record import Row, row_for, write_record
from mlbox.build.scripts import scripts_of
from mlbox.build.wheel import INSTALLER, UP, site_packages
from mlbox.codec import canonical_json
from mlbox.plan.model import PREFIX, ProjectPiece
from mlbox.project.model import Package

_WHEEL = b"Wheel-Version: 1.0\nGenerator: mlbox\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def editable_files(piece: ProjectPiece) -> Iterator[tuple[str, bytes, int]]:
    """Yield path, content and mode of every file of the installation; none when the project is no package."""
    for package in piece.packages:
        yield from _installed(package, piece)


def _installed(package: Package, piece: ProjectPiece) -> Iterator[tuple[str, bytes, int]]:
    site = site_packages(piece.python)
    full = f"{package.name.replace('-', '_')}-{package.version}"
    info = f"{full}.dist-info"
    groups = _groups(package)
    source = "/".join(filter(None, (piece.workdir.rstrip("/"), package.source.strip("/."))))
    folder = "/".join(filter(None, (piece.workdir, package.folder or "")))
    rows = []
    for script in scripts_of(groups, piece.python, f"the folder {package.folder}" if package.folder else "the project"):
        rows.append(row_for(f"{UP}bin/{script.name}", script.text()))
        yield f"{PREFIX}/bin/{script.name}", script.text(), 0o755
    files = {
        f"__editable__.{full}.pth": f"{source}\n".encode(),
        f"{info}/INSTALLER": INSTALLER,
        f"{info}/METADATA": _metadata(package),
        f"{info}/REQUESTED": b"",
        f"{info}/WHEEL": _WHEEL,
        f"{info}/direct_url.json": canonical_json({"dir_info": {"editable": True}, "url": f"file://{folder}"}),
    }
    if groups:
        files[f"{info}/entry_points.txt"] = _entry_points(groups)
    for path, data in files.items():
        rows.append(row_for(path, data))
        yield f"{site}/{path}", data, 0o644
    yield f"{site}/{info}/RECORD", write_record([*rows, Row(f"{info}/RECORD", "", "")]), 0o644


def _groups(package: Package) -> dict[str, dict[str, str]]:
    groups = {"console_scripts": package.scripts, "gui_scripts": package.gui_scripts, **package.entry_points}
    return {name: group for name, group in groups.items() if group}


def _metadata(package: Package) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {package.name}", f"Version: {package.version}"]
    if package.requires_python:
        lines.append(f"Requires-Python: {package.requires_python}")
    lines += [f"Requires-Dist: {line}" for line in package.requires]
    lines += [f"Provides-Extra: {extra}" for extra in package.extras]
    return "\n".join([*lines, ""]).encode()


def _entry_points(groups: dict[str, dict[str, str]]) -> bytes:
    blocks = [
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in group.items()), ""])
        for name, group in sorted(groups.items())
    ]
    return "\n".join(blocks).encode()
