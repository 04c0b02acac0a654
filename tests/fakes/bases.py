"""Images as others make them, for mlbox to stand on: layers with what tar knows, pushed to a real registry."""

import gzip
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Rename = Callable[[str], str]
"""From a path to where it shall lie; '' leaves it out."""


def layer_of(
    target: Path, tree: Path, rename: Rename = lambda path: path, extra: dict[str, bytes] | None = None
) -> Path:
    """Write the files of `tree` where `rename` puts them, and those of `extra`, as a tar to `target`."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.rglob("*")) if tree.is_dir() else ():
            name = str(path.relative_to(tree))
            if new := rename(name):
                tar.add(path, f"./{new}", recursive=False)
        for name, data in (extra or {}).items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode, info.mtime = len(data), 0o755 if "/bin/" in name else 0o644, 1_700_000_000
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.seek(0)
                tar.addfile(info, file)
    return target


def push_image(host: str, name: str, layers: Sequence[Path], config: dict[str, Any], skopeo: str, arch: str) -> str:
    """Push an image of those tars, gzipped, in Docker's format; return the digest of its manifest."""
    with tempfile.TemporaryDirectory(dir=layers[0].parent) as folder:
        layout = Path(folder)
        (layout / "blobs/sha256").mkdir(parents=True)
        descriptors = [_blob(layout, gzip.compress(tar.read_bytes(), 1, mtime=0), "tar+gzip") for tar in layers]
        document = {
            "architecture": arch,
            "os": "linux",
            "created": "2024-05-01T00:00:00.123456789Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(tar.read_bytes())}" for tar in layers]},
            "history": [{"created_by": f"/bin/sh -c #(nop) ADD {tar.name} in / "} for tar in layers]
            + [{"created_by": 'CMD ["python3"]', "empty_layer": True}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _blob(layout, json.dumps(document, indent=1).encode(), "config"),
            "layers": descriptors,
        }
        index = {"schemaVersion": 2, "manifests": [_blob(layout, json.dumps(manifest).encode(), "manifest")]}
        (layout / "index.json").write_text(json.dumps(index))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        copy = [skopeo, "copy", "--insecure-policy", "--dest-tls-verify=false", "--format", "v2s2"]
        digest = layout / "digest"
        command = [*copy, "--digestfile", str(digest), f"oci:{layout}", f"docker://{host}/{name}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**os.environ, "TMPDIR": folder}
        )
        assert done.returncode == 0, done.stderr
        return digest.read_text().strip()


def delete(host: str, repository: str, digest: str) -> None:
    """Take a manifest, and all tags that mean it, out of the registry."""
    request = urllib.request.Request(f"http://{host}/v2/{repository}/manifests/{digest}", method="DELETE")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202


_KINDS = {
    "tar+gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "config": "application/vnd.oci.image.config.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
}


def _blob(layout: Path, data: bytes, kind: str) -> dict[str, object]:
    (layout / "blobs/sha256" / _sha256(data)).write_bytes(data)
    return {"mediaType": _KINDS[kind], "digest": f"sha256:{_sha256(data)}", "size": len(data)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
