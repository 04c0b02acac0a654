"""Users, groups and PAM stacks, as base-passwd, passwd and libpam-runtime would set them up."""

import re

from mlbox.build.union import Union

_MASTER = "usr/share/base-passwd"
_PAM = "usr/share/pam-configs"
_DAY = 86400


def account_files(root: Union, epoch: int) -> dict[str, tuple[bytes, int]]:
    """Return content and mode of /etc/passwd, group, shadow and gshadow; nothing when base-passwd is not there."""
    passwd, group = _master(root, "passwd"), _master(root, "group")
    if not passwd or not group:
        return {}
    if not any(line.startswith("_apt:") for line in passwd):
        passwd.append("_apt:*:42:65534::/nonexistent:/usr/sbin/nologin")  # up to bullseye apt's own script adds it
    day = epoch // _DAY
    shadow = [f"{line.partition(':')[0]}:*:{day}:0:99999:7:::" for line in passwd]
    gshadow = [f"{line.partition(':')[0]}:*::" for line in group]
    return {
        "etc/passwd": (_lines([re.sub(r":[^:]*", ":x", line, count=1) for line in passwd]), 0o644),
        "etc/group": (_lines([re.sub(r":[^:]*", ":x", line, count=1) for line in group]), 0o644),
        "etc/shadow": (_lines(shadow), 0o640),
        "etc/gshadow": (_lines(gshadow), 0o640),
        "etc/subuid": (b"", 0o644),
        "etc/subgid": (b"", 0o644),
    }


def _master(root: Union, name: str) -> list[str]:
    text = (root.read(f"{_MASTER}/{name}.master") or b"").decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.count(":") >= 3]


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def pam_files(root: Union) -> dict[str, bytes]:
    """Return /etc/pam.d/common-*: Debian's templates with the profiles that are on by default."""
    profiles = [_profile(root.read(f"{_PAM}/{name}") or b"") for name in root.children(_PAM)]
    chosen = [profile for profile in profiles if profile.get("Default") == "yes"]
    chosen.sort(key=lambda profile: (-_number(profile.get("Priority", "0")), profile.get("Name", "")))
    files = {}
    for service in ("auth", "account", "password", "session", "session-noninteractive"):
        template = root.read(f"usr/share/pam/common-{service}")
        if template is not None:
            files[f"etc/pam.d/common-{service}"] = _filled(template.decode("utf-8", "replace"), service, chosen)
    return files


def _profile(data: bytes) -> dict[str, str]:
    """Parse a profile: 'Key: value', where a value may go on in indented lines."""
    found: dict[str, str] = {}
    key = ""
    for line in data.decode("utf-8", "replace").splitlines():
        if line[:1] in (" ", "\t"):
            found[key] = f"{found.get(key, '')}\n{line.strip()}".strip()
        else:
            key, _, value = line.partition(":")
            found[key] = value.strip()
    return found


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _filled(template: str, service: str, profiles: list[dict[str, str]]) -> bytes:
    kind = service.partition("-")[0]
    if service != kind:
        profiles = [profile for profile in profiles if profile.get("Session-Interactive-Only") != "yes"]
    prefix = "session_nonint" if service != kind else kind
    for block in ("Primary", "Additional"):
        lines = _block(profiles, kind.capitalize(), block) or (
            ["[default=1]\tpam_permit.so"] if block == "Primary" else []
        )
        text = "\n".join(f"{kind}\t{line}" for line in lines)
        template = template.replace(f"${prefix}_{block.lower()}", text)
    return template.encode()


def _block(profiles: list[dict[str, str]], kind: str, block: str) -> list[str]:
    lines: list[str] = []
    for profile in profiles:
        if profile.get(f"{kind}-Type") == block:
            first = profile.get(f"{kind}-Initial", "") if not lines else ""
            lines += (first or profile.get(kind, "")).splitlines()
    # 'end' means: skip the rest of this block and the module after it, which denies.
    return [re.sub(r"=end\b", f"={len(lines) - number}", line) for number, line in enumerate(lines)]
