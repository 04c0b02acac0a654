"""What turns a set of unpacked .debs into a root file system: everything their maintainer scripts would have made.

The result is one more piece, laid over the others. Left to the packages' own scripts, and named by
needs_configure: whatever needs one of their programs to run. Byte code is not compiled.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mlbox.build import ldcache
from mlbox.build.accounts import account_files, pam_files
from mlbox.build.certs import ca_files
from mlbox.build.deb import ALIASES, INFO
from mlbox.build.maintainer import alternatives, unreplicated
from mlbox.build.union import Union
from mlbox.loader import cache_bytes
from mlbox.lock.model import Arch
from mlbox.store.tree import Tree, TreeWriter

_DIRECTORIES = {
    "dev": 0o755,
    "etc/opt": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr/local/bin": 0o755,
    "usr/local/etc": 0o755,
    "usr/local/games": 0o755,
    "usr/local/include": 0o755,
    "usr/local/lib": 0o755,
    "usr/local/sbin": 0o755,
    "usr/local/share/ca-certificates": 0o755,
    "usr/local/share/fonts": 0o755,
    "usr/local/share/man": 0o755,
    "usr/local/src": 0o755,
    "var/cache/apt/archives/partial": 0o755,
    "var/cache/debconf": 0o755,
    "var/lib/apt/lists/partial": 0o755,
    "var/lib/dpkg/alternatives": 0o755,
    "var/lib/dpkg/parts": 0o755,
    "var/lib/dpkg/updates": 0o755,
    "var/log": 0o755,
    "var/mail": 0o755,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
_LINKS = {
    "etc/mtab": "../proc/self/mounts",
    "usr/local/man": "share/man",
    "var/lock": "/run/lock",
    "var/run": "/run",
    "var/spool/mail": "../mail",
}
_LINKS_WHERE = {  # path: (target, what must be there)
    "etc/dpkg/origins/default": ("debian", "etc/dpkg/origins/debian"),
    "etc/fonts/conf.d/10-hinting-slight.conf": (
        "/usr/share/fontconfig/conf.avail/10-hinting-slight.conf",
        "usr/share/fontconfig/conf.avail/10-hinting-slight.conf",
    ),
    "etc/fonts/conf.d/70-no-bitmaps.conf": (
        "/usr/share/fontconfig/conf.avail/70-no-bitmaps.conf",
        "usr/share/fontconfig/conf.avail/70-no-bitmaps.conf",
    ),
    "etc/localtime": ("/usr/share/zoneinfo/Etc/UTC", "usr/share/zoneinfo/Etc/UTC"),
    "usr/bin/sh": ("dash", "usr/bin/dash"),
}
_COPIES = {  # path: where a package has its default
    "etc/motd": ("usr/share/base-files/motd",),
    "etc/nsswitch.conf": ("usr/share/libc-bin/nsswitch.conf", "usr/share/base-files/nsswitch.conf"),
    "etc/profile": ("usr/share/base-files/profile",),
    "root/.bashrc": ("usr/share/base-files/dot.bashrc",),
    "root/.profile": ("usr/share/base-files/dot.profile",),
}
_FILES = {
    "etc/environment": b"",
    "etc/fstab": b"",
    "etc/hostname": b"localhost\n",
    "etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/machine-id": b"",
    "etc/networks": b"default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n",
    "etc/python3/debian_config": b"[DEFAULT]\nbyte-compile = standard\n",
    "etc/resolv.conf": b"",
    "etc/timezone": b"Etc/UTC\n",
    "var/lib/dpkg/available": b"",
    "var/lib/dpkg/diversions": b"",
    f"{INFO}/format": b"1\n",
    "var/lib/dpkg/statoverride": b"",
    "var/log/btmp": b"",
    "var/log/faillog": b"",
    "var/log/lastlog": b"",
    "var/log/wtmp": b"",
}
# What unpack_deb leaves out, said to dpkg too, so that packages installed later are treated alike.
_DPKG_CONFIG = b"""path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/locale.alias
path-exclude /usr/share/man/*
"""


def fill_rootfs(root: Path, trees: Sequence[tuple[Path, Tree]], *, suite: str, arch: Arch, epoch: int) -> Tree:
    """Write to the new folder `root` what the unpacked .debs `trees` still need to be a working system.

    The result depends on nothing but the arguments, and is laid over all of `trees`.
    """
    union = Union(trees)
    certificates, certificate_links = ca_files(union)
    links = union.add_links(_top_links(union, arch))
    chosen, records = alternatives(union)
    links |= union.add_links(_missing(union, {**_LINKS, **links_where(union), **chosen, **certificate_links}))
    links |= union.add_links(ldcache.missing_links(union, arch))
    made = {**records, **certificates, "etc/ld.so.cache": cache_bytes(ldcache.libraries(union, arch), arch)}
    files = _files(union, epoch) | {path: (data, 0o644) for path, data in made.items()}
    return write_rootfs(
        TreeWriter(root, f"the root file system of Debian {suite}", mtime=epoch), links, files, _DIRECTORIES
    )


def needs_configure(trees: Sequence[tuple[Path, Tree]]) -> list[str]:
    """Return the names of packages whose scripts do something that fill_rootfs does not, sorted."""
    return unreplicated(Union(trees))


def _top_links(union: Union, arch: Arch) -> dict[str, str]:
    always = {"bin", "sbin", "lib"} | ({"lib64"} if arch == "amd64" else set())
    return {name: f"usr/{name}" for name in ALIASES if name in always or union.entry(f"usr/{name}")}


def links_where(union: Union) -> dict[str, str]:
    """Return the symlinks (path: target) that stand in every Debian whose packages have what they point to."""
    return {path: target for path, (target, needed) in _LINKS_WHERE.items() if union.resolve(needed)}


def _missing(union: Union, links: Mapping[str, str]) -> dict[str, str]:
    """Return those of `links` that stand where the packages have nothing."""
    return {path: target for path, target in links.items() if union.entry(path) is None}


def _files(union: Union, epoch: int) -> dict[str, tuple[bytes, int]]:
    plain = {**_FILES, "var/lib/dpkg/status": _status(union), "etc/shells": _shells(union), **triggers(union)}
    for path, sources in _COPIES.items():
        content = next((data for source in sources if (data := union.read(source)) is not None), None)
        if content is not None:
            plain[path] = content
    plain |= pam_files(union)
    plain["etc/dpkg/dpkg.cfg.d/mlbox"] = _DPKG_CONFIG
    files = {path: (data, 0o644) for path, data in plain.items() if union.entry(path) is None}
    return files | account_files(union, epoch)


def _status(union: Union) -> bytes:
    stanzas = [union.read(f"{INFO}/{name}") for name in union.children(INFO) if name.endswith(".control")]
    return b"".join(stanza + b"\n" for stanza in stanzas if stanza)


def _shells(union: Union) -> bytes:
    text = (union.read("usr/share/debianutils/shells") or b"# /etc/shells: valid login shells\n").decode(
        "utf-8", "replace"
    )
    lines = text.splitlines()
    folder = "usr/share/debianutils/shells.d"
    for name in union.children(folder):
        more = (union.read(f"{folder}/{name}") or b"").decode("utf-8", "replace")
        for line in more.splitlines():
            shell = line.partition("#")[0].strip()
            lines += [way for way in (shell, f"/usr{shell}") if shell and way not in lines and union.resolve(way)]
    return "".join(f"{line}\n" for line in lines).encode()


def triggers(union: Union) -> dict[str, bytes]:
    """Return dpkg's table of who wants to know about which file or event (deb-triggers(5))."""
    wanted: dict[str, list[str]] = {"File": []}
    for name in union.children(INFO):
        if not name.endswith(".triggers"):
            continue
        package = name.removesuffix(".triggers")
        text = (union.read(f"{INFO}/{name}") or b"").decode("utf-8", "replace")
        for kind, event in re.findall(r"^[ \t]*interest(-noawait|-await)?[ \t]+(\S+)", text, re.MULTILINE):
            who = f"{package}/noawait" if kind == "-noawait" else package
            if event.startswith("/"):
                wanted["File"].append(f"{event} {who}")
            elif re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+.:-]*", event):
                wanted.setdefault(event, []).append(who)
    found = {f"var/lib/dpkg/triggers/{event}": "".join(f"{line}\n" for line in who) for event, who in wanted.items()}
    return {path: text.encode() for path, text in {**found, "var/lib/dpkg/triggers/Unincorp": ""}.items()}


def write_rootfs(
    writer: TreeWriter,
    links: Mapping[str, str],
    files: Mapping[str, tuple[bytes, int]],
    directories: Mapping[str, int] = MappingProxyType({}),
) -> Tree:
    """Write everything with `writer`: symlinks (path: target), files and directories with their modes."""
    for path, mode in directories.items():
        writer.directory(path, mode)
    for path, target in links.items():
        writer.symlink(path, target)
    for path, (data, mode) in files.items():
        writer.file(path, [data], mode)
    return writer.finish()
