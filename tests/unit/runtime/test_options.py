"""The command line's words for what a container may have."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import MlboxError, UsageError
from mlbox.runtime import options as o


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("10b", 10), ("1k", 1024), ("512m", 512 << 20), ("1.5G", 3 << 29), ("2gb", 2 << 30), ("3MiB", 3 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    """Powers of 1024, in the spellings people use."""
    assert o.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "-1m", "1x", "nan", "inf", "1e400", "1 2", "0x10", "m1"])
def test_not_sizes(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError):
        o.parse_size(text)


def test_volumes() -> None:
    """Source, target, and the words after them."""
    assert o.parse_volume("./data:/data") == o.BindMount(source="./data", target="/data")
    assert o.parse_volume("/a:/b//c/./:ro,keep-owner") == o.BindMount(
        source="/a", target="/b/c", readonly=True, owner="keep"
    )


@pytest.mark.parametrize("text", ["/a", ":/b", "/a:b", "/a:/", "/a:/../b", "/a:/b:rx", "/a:/b:ro:x", "/a:"])
def test_not_volumes(text: str) -> None:
    """A target is absolute, stays inside and is not the root; options are known ones."""
    with pytest.raises(UsageError):
        o.parse_volume(text)


def test_mounts() -> None:
    """Docker's key=value form, with its aliases."""
    assert o.parse_mount("type=bind,src=/a,dst=/b,ro") == o.BindMount(source="/a", target="/b", readonly=True)
    assert o.parse_mount("source=/a,target=/b,owner=keep") == o.BindMount(source="/a", target="/b", owner="keep")
    assert o.parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700") == o.TmpfsMount(
        target="/t", size=1 << 20, mode=0o700
    )
    for text in (
        "type=volume,source=a,target=/b",
        "target=/b",
        "source=/a",
        "source=/a,target=/b,x=y",
        "target=/b,target=/c",
    ):
        with pytest.raises(UsageError):
            o.parse_mount(text)


def test_tmpfs() -> None:
    """A target, and limits after a colon."""
    assert o.parse_tmpfs("/t") == o.TmpfsMount(target="/t")
    assert o.parse_tmpfs("/t:size=64m,mode=1700,exec") == o.TmpfsMount(
        target="/t", size=64 << 20, mode=0o1700, executable=True
    )
    for text in ("t", "/t:size=x", "/t:mode=9", "/t:suid"):
        with pytest.raises(UsageError):
            o.parse_tmpfs(text)


def test_ulimits() -> None:
    """One number for both, or two; -1 and 'unlimited' are the same."""
    assert o.parse_ulimit("nofile=10") == o.Ulimit(name="nofile", soft=10, hard=10)
    assert o.parse_ulimit("stack=10:-1") == o.Ulimit(name="stack", soft=10, hard=-1)
    assert o.parse_ulimit("memlock=unlimited") == o.Ulimit(name="memlock", soft=-1, hard=-1)
    for text in ("nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=-2", "nofile=1:x"):
        with pytest.raises(UsageError):
            o.parse_ulimit(text)


def test_restart() -> None:
    """Docker's policies, less the one that needs a daemon."""
    assert o.parse_restart("no") == o.Restart()
    assert o.parse_restart("always") == o.Restart(policy="always")
    assert o.parse_restart("on-failure:3") == o.Restart(policy="on-failure", retries=3)
    for text in ("", "unless-stopped", "always:3", "on-failure:", "on-failure:x"):
        with pytest.raises(UsageError):
            o.parse_restart(text)
    with pytest.raises(UsageError, match="contradict"):
        o.RunOptions(remove=True, restart=o.Restart(policy="always"))


def test_signals() -> None:
    """Names with and without SIG, numbers, real-time ones by distance."""
    assert o.parse_signal("TERM") == o.parse_signal("sigterm") == o.parse_signal("15") == signal.SIGTERM
    assert o.parse_signal("RTMIN+3") == signal.SIGRTMIN + 3
    for text in ("", "0", "65", "999", "TERMINATE", "TERM+1", "RTMIN+x", "RTMIN+99", "²"):
        with pytest.raises(UsageError):
            o.parse_signal(text)


PARSERS = (o.parse_size, o.parse_volume, o.parse_mount, o.parse_tmpfs, o.parse_ulimit, o.parse_restart, o.parse_signal)


@given(st.sampled_from(PARSERS), st.text() | st.text("0123456789:=,/.-abkmgtro", max_size=20))
def test_any_text_is_a_value_or_a_usage_error(parse: object, text: str) -> None:
    """Nothing a user types is a traceback."""
    try:
        parse(text)  # type: ignore[operator]
    except MlboxError as problem:
        assert isinstance(problem, UsageError)
