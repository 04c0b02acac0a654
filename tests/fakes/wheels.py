"""Makes wheels, sound ones and broken ones."""

import base64
import hashlib
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mlbox.plan.model import WheelPiece

WHEEL = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def record_line(path: str, data: bytes) -> str:
    """Return the line of RECORD for a file."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    quoted = f'"{path}"' if "," in path else path
    return f"{quoted},sha256={digest},{len(data)}\n"


def wheel_files(files: Mapping[str, bytes], *, name: str = "demo", version: str = "1.0") -> dict[str, bytes]:
    """Return `files` with the metadata that makes them a wheel, RECORD last; what `files` holds already is kept."""
    info = f"{name}-{version}.dist-info"
    every = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": WHEEL,
    } | dict(files)
    record = "".join(record_line(path, data) for path, data in every.items() if path != f"{info}/RECORD")
    return {**every, f"{info}/RECORD": every.get(f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode())}


def zip_file(
    path: Path,
    files: Iterable[tuple[str, bytes]],
    *,
    executable: Iterable[str] = (),
    edit: Callable[[zipfile.ZipInfo], None] = lambda info: None,
) -> Path:
    """Write a zip of `files`; `edit` may change a member before it is written."""
    runnable = frozenset(executable)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if name in runnable else 0o100644) << 16
            edit(info)
            archive.writestr(info, data)
    return path


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "demo",
    version: str = "1.0",
    executable: Iterable[str] = (),
    without: Iterable[str] = (),
    edit: Callable[[zipfile.ZipInfo], None] = lambda info: None,
) -> Path:
    """Write a wheel of `files` into `folder`, leaving out the members `without`."""
    left_out = frozenset(without)
    members = ((path, data) for path, data in wheel_files(files, name=name, version=version).items())
    kept = [(path, data) for path, data in members if path not in left_out]
    return zip_file(folder / f"{name}-{version}-py3-none-any.whl", kept, executable=executable, edit=edit)


def piece_of(path: Path, *, requested: bool = False, direct_url: str = "", python: str = "3.11") -> WheelPiece:
    """Return the piece that installs the wheel `path`."""
    name, version = path.name.split("-")[:2]
    return WheelPiece(
        name=name.lower().replace("_", "-"),
        version=version,
        filename=path.name,
        sha256="",
        python=python,
        requested=requested,
        direct_url=direct_url,
    )


def stored_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """Write a zip of stored `files` quickly: zipfile takes seconds for 100,000."""
    import zlib

    local, central = bytearray(), bytearray()
    count = 0
    for name, data in files:
        encoded, crc, size, offset = name.encode(), zlib.crc32(data), len(data), len(local)
        local += struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 0, 0, 33, crc, size, size, len(encoded), 0)
        local += encoded + data
        central += struct.pack(
            "<4sHHHHHHLLLHHHHHLL", b"PK\1\2", 20, 20, 0, 0, 0, 33, crc, size, size, len(encoded), 0, 0, 0, 0, 0, offset
        )
        central += encoded
        count += 1
    stored = min(count, 0xFFFF)
    with path.open("wb") as file:
        file.write(local + central)
        if count > stored:
            end = len(local) + len(central)
            file.write(
                struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), len(local))
                + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
            )
        file.write(struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, stored, stored, len(central), len(local), 0))
    return path
