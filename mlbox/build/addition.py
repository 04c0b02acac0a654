"""Debian packages on top of an image that others made: what their maintainer scripts would have changed in it.

Only what the new packages have a part in is written again: what the image's makers did stays.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlbox.build import ldcache
from mlbox.build.accounts import pam_files
from mlbox.build.certs import SHARED, ca_files
from mlbox.build.deb import INFO
from mlbox.build.maintainer import alternatives, choices, scripts
from mlbox.build.rootfs import links_where, triggers, write_rootfs
from mlbox.build.union import Union
from mlbox.errors import BuildError
from mlbox.loader import cache_bytes
from mlbox.lock.model import Arch
from mlbox.store.tree import Tree, TreeWriter

_STATUS = "var/lib/dpkg/status"
_PAM = "usr/share/pam-configs"
_PYTHON = "etc/python3/debian_config"
_PYTHON_CONFIG = b"[DEFAULT]\nbyte-compile = standard\n"
_NAMES = re.compile(r"^(Package|Architecture): *(\S+)", re.MULTILINE)

Files = dict[str, tuple[bytes, int]]
Trees = Sequence[tuple[Path, Tree]]


def fill_addition(root: Path, base: Trees, debs: Trees, *, arch: Arch, epoch: int) -> Tree:
    """Write to the new folder `root` what the unpacked .debs `debs` need on the layers `base` (lowest first).

    The result depends on nothing but the arguments, and is laid over both. Raises BuildError when a package's file
    would take the place of a folder of the image, or the other way round.
    """
    below, new = Union.of_layers(base), Union(debs)
    _check_places(below, new)
    whole = Union.of_layers([*base, *debs])
    chosen, records = _alternatives(whole, new)
    links = whole.add_links(_absent(whole, links_where(new)) | chosen)
    certificates, certificate_links = ca_files(whole) if new.children(SHARED) else ({}, {})
    links |= whole.add_links(certificate_links)
    links |= whole.add_links(ldcache.missing_links(whole, arch))
    made = {**_texts(below, new, whole), **records, **certificates}
    made["etc/ld.so.cache"] = cache_bytes(ldcache.libraries(whole, arch), arch)
    files: Files = {path: (data, 0o644) for path, data in made.items()}
    return write_rootfs(TreeWriter(root, "the packages added to the base", mtime=epoch), links, files)


def _texts(below: Union, new: Union, whole: Union) -> dict[str, bytes]:
    """Return the files that say something about the packages."""
    texts = {_STATUS: _status(below, new), **triggers(whole)}
    if new.children(_PAM):
        texts |= pam_files(whole)
    if new.entry("usr/bin/py3compile") and whole.entry(_PYTHON) is None:
        texts[_PYTHON] = _PYTHON_CONFIG
    return texts


def _status(below: Union, new: Union) -> bytes:
    """Return dpkg's status file: the image's stanzas, those of the new packages in their place or after them."""
    names = [name for name in new.children(INFO) if name.endswith(".control")]
    added = {_identity(text): text for name in names if (text := (new.read(f"{INFO}/{name}") or b"").strip(b"\n"))}
    stanzas = [part.strip(b"\n") for part in (below.read(_STATUS) or b"").split(b"\n\n") if part.strip()]
    kept = [added.pop(_identity(stanza), stanza) for stanza in stanzas]
    return b"".join(stanza + b"\n\n" for stanza in (*kept, *added.values()))


def _identity(stanza: bytes) -> tuple[str, str]:
    fields = dict(_NAMES.findall(stanza.decode("utf-8", "replace")))
    return fields.get("Package", ""), fields.get("Architecture", "")


def _alternatives(whole: Union, new: Union) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return links and records of the alternatives that a new package offers a choice of."""
    concerned = {choice.name for _, script in scripts(new) for choice in choices(script)}
    return alternatives(whole, concerned)


def _absent(whole: Union, links: Mapping[str, str]) -> dict[str, str]:
    return {path: target for path, target in links.items() if whole.entry(path) is None}


def _check_places(below: Union, new: Union) -> None:
    """Raise BuildError where the packages and the image disagree about what is a folder.

    A folder of a package over a symlink of the image would hide everything behind that link.
    """
    for path in sorted(new.paths()):
        here, there = below.entry(path), new.entry(path)
        if here is None or there is None or (here.kind == "dir") == (there.kind == "dir"):
            continue
        raise BuildError(
            f"/{path} is a {here.kind} in the base and a {there.kind} in the packages that are added to it",
            hint="leave the package out of system-packages, or take another base",
        )
