"""The system call table: what is in it, what must never be."""

from pathlib import Path

import pytest

from mlbox.errors import ContainerError
from mlbox.oci.runtime import Seccomp
from mlbox.runtime.seccomp import ALLOWED, BY_CAPABILITY, default_profile, load_profile
from mlbox.runtime.spec import CAPABILITIES

NAMES = [name for group in ALLOWED.values() for name in group.split()]

# Each changes or reads the machine outside the container, or has a way to.
NEVER = """
    acct add_key bpf clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen
    fspick get_kernel_syms init_module ioperm iopl kexec_file_load kexec_load keyctl lookup_dcookie mount
    mount_setattr move_mount nfsservctl open_by_handle_at open_tree perf_event_open pivot_root query_module quotactl
    quotactl_fd reboot request_key setdomainname sethostname setns settimeofday swapoff swapon syslog _sysctl umount
    umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old io_uring_setup io_uring_enter io_uring_register
    clone clone3 socket personality
"""


def outcome(profile: Seccomp, name: str) -> set[str]:
    """Return the actions that `name` can have without conditions."""
    return {rule.action for rule in profile.syscalls if name in rule.names and not rule.args}


def test_table_names_each_call_once() -> None:
    """In one group, spelled as a name."""
    assert len(NAMES) == len(set(NAMES))
    assert all(name.replace("_", "").isalnum() and name.islower() for name in NAMES)


def test_dangerous_calls_are_not_allowed() -> None:
    """Not by the table, not by the default capabilities."""
    profile = default_profile(CAPABILITIES, "x86_64")
    assert profile.default_action == "SCMP_ACT_ERRNO"
    assert profile.default_errno_ret == 1
    for name in NEVER.split():
        assert "SCMP_ACT_ALLOW" not in outcome(profile, name), name


def test_fallbacks_are_told_enosys() -> None:
    """The C library and event loops try something else only when the call seems not to exist."""
    profile = default_profile((), "x86_64")
    (rule,) = (rule for rule in profile.syscalls if "clone3" in rule.names)
    assert (rule.action, rule.errno_ret) == ("SCMP_ACT_ERRNO", 38)
    assert "io_uring_setup" in rule.names


def test_clone_makes_no_namespace() -> None:
    """All seven flags are looked at."""
    profile = default_profile((), "x86_64")
    (rule,) = (rule for rule in profile.syscalls if "clone" in rule.names)
    assert rule.args[0].value == 0x7E020000
    assert (rule.args[0].index, rule.args[0].value_two, rule.args[0].op) == (0, 0, "SCMP_CMP_MASKED_EQ")


def test_a_capability_opens_what_it_is_for() -> None:
    """And only that; no name is allowed and refused at once."""
    profile = default_profile(("CAP_SYS_ADMIN",), "x86_64")
    assert outcome(profile, "mount") == {"SCMP_ACT_ALLOW"}
    assert outcome(profile, "clone3") == {"SCMP_ACT_ALLOW"}
    assert outcome(profile, "init_module") == set()
    assert all(name.startswith("CAP_") for name in BY_CAPABILITY)
    assert not set(NAMES) & {name for names in BY_CAPABILITY.values() for name in names.split()}


def test_only_the_machines_own_architecture() -> None:
    """A 32-bit call has other numbers; on machines we do not know the runtime chooses."""
    assert default_profile((), "x86_64").architectures == ("SCMP_ARCH_X86_64",)
    assert default_profile((), "aarch64").architectures == ("SCMP_ARCH_AARCH64",)
    assert default_profile((), "riscv64").architectures == ()


def test_a_users_profile(tmp_path: Path) -> None:
    """The runtime-spec's object; a condition that would be ignored is refused, as is a file that is not there."""
    path = tmp_path / "p.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}')
    assert load_profile(path) == Seccomp(default_action="SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_X86_64",))
    conditional = '[{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}}]'
    for text in ("{", "[]", "{}", f'{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {conditional}}}'):
        path.write_text(text)
        with pytest.raises(ContainerError, match="profile"):
            load_profile(path)
    with pytest.raises(ContainerError, match="No such file"):
        load_profile(tmp_path / "missing")
