"""Control groups: reading mountinfo, counting kills, removing groups; on plain folders, which look the same."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlbox.linux.cgroup import Hierarchy, controllers, is_unified, oom_kills, parse_mountinfo, processes, remove

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu\\040x rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 31 0:31 /mlbox/a /elsewhere rw,relatime - cgroup2 cgroup2 rw
36 31 0:29 / /second rw,relatime - cgroup cgroup rw,cpu,cpuacct
"""


def test_mountinfo() -> None:
    """Each hierarchy once, at its whole mount, with escapes undone."""
    mounted = parse_mountinfo(HYBRID)
    assert mounted == (
        Hierarchy("/sys/fs/cgroup/cpu x", ("cpu", "cpuacct"), 1),
        Hierarchy("/sys/fs/cgroup/systemd", ("name=systemd",), 1),
        Hierarchy("/sys/fs/cgroup/unified", (), 2),
    )
    assert not is_unified(mounted)
    assert is_unified(mounted[2:])


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Lines of a shape we do not know are passed over."""
    assert parse_mountinfo(text) == ()


def test_controllers(tmp_path: Path) -> None:
    """Version 1 has them in the mount's options, version 2 in a file."""
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    mounted = (Hierarchy(str(tmp_path), (), 2), Hierarchy("/cpu", ("cpu", "cpuacct"), 1))
    assert controllers(mounted) == {"memory", "pids", "cpu", "cpuacct"}


def test_kills_are_counted_in_either_version(tmp_path: Path) -> None:
    """memory.oom_control of version 1, memory.events of version 2, neither when the group is gone."""
    one, two = tmp_path / "1", tmp_path / "2"
    (one / "g").mkdir(parents=True)
    (two / "g").mkdir(parents=True)
    mounted = (Hierarchy(str(one), ("memory",), 1), Hierarchy(str(two), (), 2))
    assert oom_kills("/g", mounted) == 0
    (two / "g/memory.events").write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert oom_kills("/g", mounted) == 3
    (one / "g/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert oom_kills("/g", mounted) == 2


def test_processes_and_removal(tmp_path: Path) -> None:
    """Groups below ours count and go too; removing what is not there is fine."""
    mounted = (Hierarchy(str(tmp_path / "a"), (), 2), Hierarchy(str(tmp_path / "b"), ("pids",), 1))
    deep = tmp_path / "a/g/inner/most"
    deep.mkdir(parents=True)
    (deep / "cgroup.procs").write_text("12\n34\n")
    assert processes("/g", mounted) == {12, 34}
    (deep / "cgroup.procs").unlink()
    remove("/g", mounted)
    assert not (tmp_path / "a/g").exists()
    assert (tmp_path / "a").exists()
    remove("/g", mounted)
