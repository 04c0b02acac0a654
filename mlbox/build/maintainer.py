"""What maintainer scripts ask for, read and never run: alternatives, and which scripts do more than we replicate."""

import re
import shlex
from collections.abc import Collection, Iterator

import msgspec

from mlbox.build.deb import INFO, merged
from mlbox.build.union import Union

# Scripts read one by one for bullseye, bookworm and trixie: what they do on a first installation is made by
# mlbox.build.rootfs, or is nothing that a container needs (upgrades, restarting services, caches of byte code).
_REPLICATED = re.compile(
    r"adduser|apt|base-files|base-passwd|bash|ca-certificates|coreutils|dash|debconf|debian-archive-keyring|debianutils"
    r"|dpkg|findutils|fontconfig|fontconfig-config|git|init-system-helpers|gzip|libc-bin|libc6|libgcrypt20|libgssapi-krb5-2"
    r"|libpam-runtime|libpam0g|libssl1\.1|libwrap0|login\.defs|ucf|python3-distutils|python3-lib2to3"
    r"|libpam-modules|login|mawk|netbase|openssl|passwd|perl|perl-base|python3|python3-minimal|python3\.\d+"
    r"|python3\.\d+-minimal|libpython3\.\d+-minimal|readline-common|sysvinit-utils|tzdata|usr-is-merged|util-linux"
)
# Scripts that only compile what other packages put into a folder: without such files there is nothing to do.
_ONLY_WITH = {
    "libglib2.0-0": r"usr/share/glib-2\.0/schemas/.*\.xml|usr/lib/[^/]+/gio/modules/.*\.so",
    "libglib2.0-0t64": r"usr/share/glib-2\.0/schemas/.*\.xml|usr/lib/[^/]+/gio/modules/.*\.so",
    "libgdk-pixbuf-2.0-0": r"usr/lib/[^/]+/gdk-pixbuf-2\.0/[^/]+/loaders/.*\.so",
}
_AUTOMATIC = re.compile(r"# Automatically added by (\S+)\n.*?# End automatically added section\n?", re.DOTALL)
_AUTOMATIC_FINE = re.compile(
    r"dh_(?:installdeb|makeshlibs|python3|installmenu|installsystemd\w*|systemd_\w+|installinit|installalternatives"
    r"|installtmpfiles|installdebconf|installdocs|icons|installmime|bugfiles|usrlocal|installudev|apparmor|strip)(?:/.*)?"
)
_HARMLESS = re.compile(
    r"|set [-+]\w+|exit(?: 0)?|:|true|then|else|fi|done|esac|in|do|\{|\}|;;|(?:if|elif|case|while|for)\b.*"
    r"|\(?[\w*| \"-]+\)|(?:echo|printf|test|return|shift|local)\b.*|\w+\(\)\s*\{?|\w+=\S*"
    r"|\. /usr/share/debconf/confmodule|db_(?:stop|purge|version)\b.*"
    r"|(?:dpkg-maintscript-helper|deb-systemd-helper|deb-systemd-invoke|invoke-rc\.d|update-rc\.d|py3compile|ldconfig"
    r"|dpkg-trigger|rm -f|rmdir)\b.*|update-alternatives .*--(?:remove|auto)\b.*"
)
_CHOICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_TESTING = re.compile(r"^\s*(?:#.*)?$")


class Slave(msgspec.Struct, frozen=True):
    """A link that follows the choice of its master."""

    link: str
    name: str
    path: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way to provide the alternative `name` at `link`."""

    link: str
    name: str
    path: str
    priority: int
    slaves: tuple[Slave, ...] = ()


def scripts(root: Union, kinds: str = "postinst") -> Iterator[tuple[str, str]]:
    """Yield package (with its architecture where dpkg has it) and text of every script of that kind."""
    for name in root.children(INFO):
        package, dot, kind = name.rpartition(".")
        if dot and kind == kinds:
            yield package, (root.read(f"{INFO}/{name}") or b"").decode("utf-8", "replace")


def choices(script: str) -> Iterator[Choice]:
    """Yield the alternatives that `script` installs, as far as they are written out."""
    for line in _commands(script):
        if (found := _choice(line)) is not None:
            yield found


def _commands(script: str) -> list[str]:
    return [line.strip() for line in script.replace("\\\n", " ").splitlines() if not _TESTING.match(line)]


def _choice(line: str) -> Choice | None:
    if "update-alternatives" not in line or "--install" not in line:
        return None
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    tail = words[words.index("--install") + 1 :] if "--install" in words else []
    if len(tail) < 4 or not _plain(tail[:4]) or not re.fullmatch(r"-?\d{1,9}", tail[3]):
        return None
    link, name, path, priority = tail[:4]
    slaves = []
    rest = tail[4:]
    while len(rest) >= 4 and rest[0] == "--slave" and _plain(rest[1:4]):
        slaves.append(Slave(rest[1], rest[2], rest[3]))
        rest = rest[4:]
    return Choice(link=link, name=name, path=path, priority=int(priority), slaves=tuple(slaves))


def _plain(words: list[str]) -> bool:
    link, name, path = words[:3]
    return (
        link.startswith("/") and path.startswith("/") and bool(_CHOICE_NAME.fullmatch(name)) and "$" not in link + path
    )


def alternatives(root: Union, names: Collection[str] | None = None) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the symlinks (path: target) and dpkg's records of every alternative, or of those called `names`.

    The highest priority is chosen.
    """
    found: dict[str, list[Choice]] = {}
    for _package, script in scripts(root):
        for choice in choices(script):
            if (names is None or choice.name in names) and root.resolve(choice.path):
                found.setdefault(choice.name, []).append(choice)
    links: dict[str, str] = {}
    records: dict[str, bytes] = {}
    for name, offered in sorted(found.items()):
        ordered = sorted({choice.path: choice for choice in offered}.values(), key=lambda choice: choice.path)
        best = max(ordered, key=lambda choice: choice.priority)
        for link, link_name, path in ((best.link, name, best.path), *_present(root, best)):
            links[f"etc/alternatives/{link_name}"] = path
            links[merged(link.lstrip("/"))] = f"/etc/alternatives/{link_name}"
        records[f"var/lib/dpkg/alternatives/{name}"] = _record(root, ordered)
    return links, records


def _present(root: Union, choice: Choice) -> list[tuple[str, str, str]]:
    return [(slave.link, slave.name, slave.path) for slave in choice.slaves if root.resolve(slave.path)]


def _record(root: Union, offered: list[Choice]) -> bytes:
    # update-alternatives(1), "FILES": state, link, then name and link of each slave; then path, priority and slaves
    # of each choice.
    slaves = {name: link for choice in offered for link, name, _ in _present(root, choice)}
    lines = ["auto", offered[0].link]
    for name, link in sorted(slaves.items()):
        lines += [name, link]
    lines.append("")
    for choice in offered:
        paths = {name: path for _, name, path in _present(root, choice)}
        lines += [choice.path, str(choice.priority), *(paths.get(name, "") for name in sorted(slaves))]
    return ("\n".join([*lines, ""]) + "\n").encode()


def unreplicated(root: Union) -> list[str]:
    """Return the sorted names of packages whose postinst does something that nobody has done in its place."""
    paths = "\n".join(root.paths())
    found = set()
    for package, script in scripts(root):
        name = package.partition(":")[0]
        if _REPLICATED.fullmatch(name) or not _remainder(script):
            continue
        if name in _ONLY_WITH and not re.search(f"^(?:{_ONLY_WITH[name]})$", paths, re.MULTILINE):
            continue
        found.add(name)
    return sorted(found)


def _remainder(script: str) -> list[str]:
    """Return the commands of `script` that may do something."""
    own = _AUTOMATIC.sub(lambda match: "" if _AUTOMATIC_FINE.fullmatch(match[1]) else match[0], script)
    lines = [line for line in _commands(own) if _choice(line) is None]
    return [line for line in lines if not _HARMLESS.fullmatch(line)]
