"""The runtime-spec's documents."""

import json

import msgspec
import pytest

from mlbox.oci import runtime as r

# The example of the runtime-spec's config.md, shortened, with its spelling.
EXAMPLE = {
    "ociVersion": "1.0.1",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 1, "umask": 63, "additionalGids": [5, 6]},
        "args": ["sh"],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "ambient": ["CAP_NET_BIND_SERVICE"]},
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "slartibartfast",
    "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=65536k"]}],
    "hooks": {"createRuntime": [{"path": "/usr/bin/x", "args": ["x", "y"], "env": ["k=v"], "timeout": 5}]},
    "linux": {
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 7, "gid": 8}],
        "uidMappings": [{"containerID": 1, "hostID": 1000, "size": 32000}],
        "cgroupsPath": "/myRuntime/myContainer",
        "resources": {
            "pids": {"limit": 32771},
            "memory": {"limit": 536870912, "swap": 536870912},
            "cpu": {"quota": 1000000, "period": 500000, "cpus": "2-3"},
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229}],
        },
        "rootfsPropagation": "slave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
        },
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/var/run/netns/x"}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_forward": "1"},
    },
    "annotations": {"com.example.key1": "value1"},
}


def test_the_specs_example_is_read_and_written_unchanged() -> None:
    """Every field has the document's spelling and place."""
    spec = msgspec.json.decode(json.dumps(EXAMPLE), type=r.Spec)
    assert json.loads(msgspec.json.encode(spec)) == EXAMPLE


def test_a_rule_is_never_weakened_by_what_is_left_out() -> None:
    """'allow' is written even when it is false, as is a limit of zero."""
    assert b'"allow":false' in msgspec.json.encode(r.DeviceCgroupRule(allow=False))
    assert msgspec.json.encode(r.Rlimit(type="RLIMIT_CORE", soft=0, hard=0)) == (
        b'{"type":"RLIMIT_CORE","soft":0,"hard":0}'
    )


def test_unknown_conditions_of_a_filter_are_refused() -> None:
    """A rule that holds only sometimes must not become one that holds always."""
    with pytest.raises(msgspec.ValidationError, match="includes"):
        msgspec.json.decode(b'{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{}}', type=r.SeccompRule)
