"""Who a process in a container is: names looked up in the image's own /etc/passwd and /etc/group. Pure."""

from collections.abc import Callable, Iterator

import msgspec

from mlbox.errors import ContainerError

_MAX_ID = 0xFFFFFFFE

# Returns the bytes of a file of the image, b"" when it has none.
Reader = Callable[[str], bytes]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers, groups and home of a user."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve_account(user: str, read: Reader) -> Account:
    """Return the account that 'name', 'uid', 'name:group' or 'uid:gid' means in the image that `read` reads.

    A number need not be known there; a name must.
    """
    who, colon, group = user.partition(":")
    who = who or "0"
    account = _known_user(who, read)
    if not colon:
        return account
    groups = list(_rows(read("/etc/group"), 3))
    gid = next((int(row[2]) for row in groups if row[0] == group and _is_id(row[2])), None)
    if gid is None and not _is_id(group):
        raise ContainerError(f"the image has no group {group!r}", hint="use a number, or a group of its /etc/group")
    return msgspec.structs.replace(account, gid=int(group) if gid is None else gid, groups=())


def _known_user(who: str, read: Reader) -> Account:
    for row in _rows(read("/etc/passwd"), 6):
        # A name that is all digits is a name first, as in useradd and chown.
        if who in (row[0], row[2]) and _is_id(row[2]) and _is_id(row[3]):
            gid = int(row[3])
            return Account(uid=int(row[2]), gid=gid, groups=_groups_of(row[0], gid, read), home=row[5] or "/")
    if not _is_id(who):
        raise ContainerError(f"the image has no user {who!r}", hint="use a number, or a user of its /etc/passwd")
    return Account(uid=int(who), home="/root" if who == "0" else "/")


def _groups_of(name: str, gid: int, read: Reader) -> tuple[int, ...]:
    found = {int(row[2]) for row in _rows(read("/etc/group"), 4) if _is_id(row[2]) and name in row[3].split(",")}
    return tuple(sorted(found - {gid}))


def _rows(data: bytes, fields: int) -> Iterator[list[str]]:
    for line in data.decode("utf-8", "replace").splitlines():
        row = line.strip().split(":")
        if len(row) >= fields:
            yield row


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID
