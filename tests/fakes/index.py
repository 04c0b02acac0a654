"""Wheels, sdists and a package index made on the fly."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

from fakes.server import Server

_DATE = (2020, 1, 1, 0, 0, 0)


def make_wheel(
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    tag: str = "py3-none-any",
    extra_metadata: str = "",
) -> tuple[str, bytes]:
    """Return the file name and the bytes of a valid wheel with these files (default: a module of its name)."""
    module = name.replace("-", "_").replace(".", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires) + extra_metadata
    content = {
        **({f"{module}.py": f"VERSION = {version!r}\n".encode()} if files is None else files),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: fake\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},{_record_hash(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"{module}-{version}-{tag}.whl", _zip(content)


def make_sdist(
    name: str, version: str, *, pyproject: str | None = None, files: Mapping[str, bytes] | None = None
) -> tuple[str, bytes]:
    """Return the file name and the bytes of an sdist with static metadata."""
    top = f"{name.replace('-', '_')}-{version}"
    content = {"PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n".encode(), **(files or {})}
    if pyproject is not None:
        content["pyproject.toml"] = pyproject.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, data in content.items():
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return f"{top}.tar.gz", buffer.getvalue()


class FakeIndex:
    """A simple index (PEP 503 and 691) below /simple of a Server."""

    def __init__(self, server: Server, *, prefix: str = "/simple", as_json: bool = False) -> None:
        self._server = server
        self._prefix = prefix
        self._up = "../" * (prefix.count("/") + 1)
        self._as_json = as_json
        self._files: dict[str, dict[str, bytes]] = {}

    @property
    def url(self) -> str:
        """Return the index's address."""
        return self._server.url + self._prefix

    def add(self, file: tuple[str, bytes]) -> bytes:
        """Offer a wheel or sdist; returns its bytes."""
        filename, data = file
        name = filename.removesuffix(".tar.gz").split("-")[0].replace("_", "-").lower()
        self._files.setdefault(name, {})[filename] = data
        self._server.files[f"/files/{filename}"] = data
        self._write(name)
        return data

    def remove(self, filename: str) -> None:
        """Take a file away, page and content."""
        for name, files in self._files.items():
            if files.pop(filename, None) is not None:
                self._write(name)
        self._server.files.pop(f"/files/{filename}", None)

    def _write(self, name: str) -> None:
        page = f"{self._prefix}/{name}/"
        if self._as_json:
            self._server.types[page] = "application/vnd.pypi.simple.v1+json"
            self._server.files[page] = json.dumps(
                {
                    "meta": {"api-version": "1.1"},
                    "name": name,
                    "files": [
                        {
                            "filename": filename,
                            "url": f"{self._up}files/{filename}",
                            "hashes": {"sha256": sha256(data)},
                            "size": len(data),
                        }
                        for filename, data in self._files[name].items()
                    ],
                }
            ).encode()
            return
        self._server.types[page] = "text/html; charset=utf-8"
        lines = [
            f'<a href="{self._up}files/{filename}#sha256={sha256(data)}">{filename}</a><br>'
            for filename, data in self._files[name].items()
        ]
        self._server.files[page] = f"<!DOCTYPE html><html><body>{''.join(lines)}</body></html>".encode()


def sha256(data: bytes) -> str:
    """Return the sha256 (hex) of `data`."""
    return hashlib.sha256(data).hexdigest()


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zip(content: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            info = zipfile.ZipInfo(path, _DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()
