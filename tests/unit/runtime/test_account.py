"""Users, looked up in what the image says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ContainerError
from mlbox.runtime.account import Account, resolve_account

FILES = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"
    b"# comment\n"
    b"ann:x:1000:1001:Ann:/home/ann:/bin/sh\n"
    b"bad:x:-5:x::/:\n"
    b"1234:x:77:78::/digits:\n"
    b"homeless:x:5:6:::\n",
    "/etc/group": b"root:x:0:\nstaff:x:50:bob,ann\nvideo:x:44:ann\nown:x:1001:ann\nann:x:9\n",
}


def read(path: str) -> bytes:
    """Read as an image would be read."""
    return FILES.get(path, b"")


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", Account(home="/root")),
        ("root", Account(home="/root")),
        ("ann", Account(uid=1000, gid=1001, groups=(44, 50), home="/home/ann")),
        ("1000", Account(uid=1000, gid=1001, groups=(44, 50), home="/home/ann")),
        ("ann:video", Account(uid=1000, gid=44, home="/home/ann")),
        ("ann:7", Account(uid=1000, gid=7, home="/home/ann")),
        ("4000", Account(uid=4000)),
        ("4000:staff", Account(uid=4000, gid=50)),
        ("1234", Account(uid=77, gid=78, home="/digits")),
        ("homeless", Account(uid=5, gid=6)),
    ],
)
def test_users(user: str, account: Account) -> None:
    """Names, numbers, and groups of either kind."""
    assert resolve_account(user, read) == account


@pytest.mark.parametrize("user", ["nobody", "bad", "ann:nogroup", "-1", "4294967295", "99999999999", "ann:"])
def test_nobody(user: str) -> None:
    """A name must be in the image; a number must be one that the kernel has."""
    with pytest.raises(ContainerError):
        resolve_account(user, read)


def test_an_image_without_files() -> None:
    """Root is root, numbers are numbers."""
    assert resolve_account("", lambda _: b"") == Account(home="/root")
    assert resolve_account("3:4", lambda _: b"") == Account(uid=3, gid=4)


@given(st.text(max_size=20), st.binary(max_size=200))
def test_hostile_files(user: str, data: bytes) -> None:
    """Whatever an image puts there is an account with real numbers, or a ContainerError."""
    try:
        account = resolve_account(user, lambda _: data)
    except ContainerError:
        return
    assert 0 <= account.uid <= 0xFFFFFFFE
    assert all(0 <= gid <= 0xFFFFFFFE for gid in (account.gid, *account.groups))
