"""Container Device Interface: what a file may say, and what its edits do to a runtime spec."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.cdi import (
    VERSIONS,
    CdiMount,
    ContainerEdits,
    DeviceNode,
    Name,
    Spec,
    apply,
    minimum_version,
    parse_name,
    parse_spec,
)
from mlbox.errors import ContainerError
from mlbox.oci.runtime import Device, DeviceCgroupRule, Hook, Linux, Mount, Process, Resources, User
from mlbox.oci.runtime import Spec as RuntimeSpec

DENY = DeviceCgroupRule(allow=False, access="rwm")


class Node(NamedTuple):
    type: str = "c"
    major: int = 195
    minor: int = 0
    mode: int = 0o666


NODES = {"/dev/nvidia0": Node(), "/dev/nvidiactl": Node(minor=255), "/dev/sda": Node("b", 8, 0, 0o660)}


def document(edits: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "1.1.0",
        "kind": "vendor.com/gpu",
        "devices": [{"name": "gpu0", "containerEdits": edits}],
    } | more


def spec(uid: int = 0, **changes: Any) -> RuntimeSpec:
    return RuntimeSpec(
        oci_version="1.0.2",
        process=Process(args=("true",), cwd="/", env=("A=1",), user=User(uid=uid, gid=uid, additional_gids=(7,))),
        mounts=(Mount(destination="/proc"), Mount(destination="/data/in"), Mount(destination="/dev/pts")),
        linux=Linux(resources=Resources(devices=(DENY,))),
        **changes,
    )


def applied(edits: ContainerEdits, to: RuntimeSpec | None = None) -> RuntimeSpec:
    return apply(edits, to or spec(), NODES.get)


def test_a_node_is_made_and_exactly_its_minor_is_allowed() -> None:
    """Numbers and mode come from the host; who runs in the container owns it."""
    edits = ContainerEdits(device_nodes=(DeviceNode(path="/dev/gpu", host_path="/dev/nvidia0"),))
    linux = applied(edits, spec(uid=1000)).linux
    assert linux is not None and linux.resources is not None
    assert linux.devices == (
        Device(type="c", path="/dev/gpu", major=195, minor=0, file_mode=0o666, uid=1000, gid=1000),
    )
    assert linux.resources.devices == (DENY, DeviceCgroupRule(allow=True, type="c", major=195, minor=0, access="rwm"))


def test_permissions_numbers_and_owners_of_the_file_count() -> None:
    """A type with its numbers needs no node on the host; 'none' allows nothing."""
    nodes = (
        DeviceNode(path="/dev/a", type="b", major=9, minor=1, permissions="r", uid=5, gid=6, file_mode=0o400),
        DeviceNode(path="/dev/b", type="c", major=9, minor=2, permissions="none"),
        DeviceNode(path="/dev/c", type="p"),
        DeviceNode(path="/dev/u", type="u", major=9, minor=3),
    )
    linux = applied(ContainerEdits(device_nodes=nodes)).linux
    assert linux is not None and linux.resources is not None
    assert linux.devices[0] == Device(type="b", path="/dev/a", major=9, minor=1, file_mode=0o400, uid=5, gid=6)
    assert linux.devices[2] == Device(type="p", path="/dev/c")
    assert linux.resources.devices[1:] == (
        DeviceCgroupRule(allow=True, type="b", major=9, minor=1, access="r"),
        DeviceCgroupRule(allow=True, type="c", major=9, minor=3, access="rwm"),
    )


def test_a_later_node_replaces_one_at_the_same_path() -> None:
    """And asking twice allows once."""
    first = DeviceNode(path="/dev/x", host_path="/dev/sda")
    then = DeviceNode(path="/dev/x", host_path="/dev/nvidia0")
    linux = applied(ContainerEdits(device_nodes=(first, then, then))).linux
    assert linux is not None and linux.resources is not None
    assert [(one.type, one.major) for one in linux.devices] == [("c", 195)]
    assert len(linux.resources.devices) == 3


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (DeviceNode(path="/dev/none"), "is no device node"),
        (DeviceNode(path="/dev/sda", type="c"), "says type c, the host has b"),
    ],
)
def test_what_the_host_lacks_is_an_error(node: DeviceNode, message: str) -> None:
    """Not a container without the device."""
    with pytest.raises(ContainerError, match=message):
        applied(ContainerEdits(device_nodes=(node,)))


def test_variables_groups_and_hooks_are_added() -> None:
    """A variable that is there gets the new value; group 0 is not given; hooks go to their stage."""
    document_ = document(
        {
            "env": ["A=2", "B=x=y"],
            "additionalGids": [0, 44, 7, 44],
            "hooks": [{"hookName": "createContainer", "path": "/bin/h", "args": ["h", "x"], "timeout": 3}],
            "intelRdt": {"closID": "c", "l3CacheSchema": "L3"},
        }
    )
    found = applied(parse_spec(document_, "f").devices[0].container_edits)
    assert found.process is not None and found.hooks is not None and found.linux is not None
    assert found.process.env == ("A=2", "B=x=y")
    assert found.process.user.additional_gids == (7, 44)
    assert found.hooks.create_container == (Hook(path="/bin/h", args=("h", "x"), timeout=3),)
    assert found.linux.intel_rdt == {"closID": "c", "l3CacheSchema": "L3"}


def test_what_lies_deeper_is_mounted_later() -> None:
    """A mount at the path of another replaces it; plain ones are bind mounts."""
    edits = ContainerEdits(
        mounts=(
            CdiMount(host_path="/a", container_path="/data", options=("ro",)),
            CdiMount(host_path="/b", container_path="/data/in"),
            CdiMount(host_path="tmpfs", container_path="/t", type="tmpfs", options=("size=1m",)),
        )
    )
    mounts = applied(edits).mounts
    assert [one.destination for one in mounts] == ["/proc", "/data", "/t", "/dev/pts", "/data/in"]
    assert mounts[1] == Mount(destination="/data", type="bind", source="/a", options=("bind", "ro"))
    assert mounts[2] == Mount(destination="/t", type="tmpfs", source="tmpfs", options=("size=1m",))
    assert mounts[4].source == "/b"


def test_no_edits_change_nothing() -> None:
    """Not even the order of anything."""
    assert applied(ContainerEdits()) == spec()


def test_network_devices_are_refused_not_forgotten() -> None:
    """The runtime cannot move them."""
    edits = parse_spec(document({"netDevices": [{"hostInterfaceName": "ib0", "name": "ib0"}]}), "f").devices[0]
    with pytest.raises(ContainerError, match="ib0"):
        applied(edits.container_edits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cdiVersion": "0.2.0"}, "version '0.2.0' is not known"),
        ({"cdiVersion": "9.0.0"}, "not known"),
        ({"kind": "gpu"}, "not a kind"),
        ({"kind": "1vendor.com/gpu"}, "not a kind"),
        ({"devices": []}, "no devices"),
        ({"devices": [{"name": "a/b", "containerEdits": {}}]}, "not a device name"),
        ({"devices": [{"name": "a", "containerEdits": {}}] * 2}, "same name"),
        ({"surprise": 1}, "unknown field"),
        ({"containerEdits": {"env": ["=x"]}}, "not a variable"),
        ({"containerEdits": {"deviceNodes": [{"path": "dev/x"}]}}, "not a path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/../x"}]}}, "not a path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/x", "type": "z"}]}}, "not a type"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]}}, "not permissions"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/x", "type": "c", "major": -1}]}}, "below zero"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a", "containerPath": "b"}]}}, "not a mount"),
        ({"containerEdits": {"mounts": [{"hostPath": "a", "containerPath": "/b"}]}}, "not a mount"),
        ({"containerEdits": {"hooks": [{"hookName": "later", "path": "/bin/x"}]}}, "not a hook"),
        ({"containerEdits": {"hooks": [{"hookName": "poststop", "path": "x"}]}}, "absolute path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/x", "speed": 1}]}}, "unknown field"),
    ],
)
def test_a_file_that_is_half_understood_is_refused(change: dict[str, Any], message: str) -> None:
    """With its name and what is wrong."""
    with pytest.raises(ContainerError, match=message) as caught:
        parse_spec(document({}) | change, "/etc/cdi/x.json")
    assert caught.value.message.startswith("/etc/cdi/x.json: ")


@pytest.mark.parametrize(
    ("version", "change"),
    [
        ("0.3.0", {}),
        ("0.4.0", {"containerEdits": {"mounts": [{"hostPath": "a", "containerPath": "/a", "type": "tmpfs"}]}}),
        ("0.5.0", {"containerEdits": {"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y"}]}}),
        ("0.5.0", {"devices": [{"name": "0", "containerEdits": {}}]}),
        ("0.6.0", {"annotations": {"a": "b"}}),
        ("0.6.0", {"kind": "vendor.com/gpu.mig"}),
        ("0.7.0", {"containerEdits": {"additionalGids": [4]}}),
        ("0.7.0", {"containerEdits": {"intelRdt": {"closID": "a"}}}),
        ("1.1.0", {"containerEdits": {"intelRdt": {"schemata": ["L3:0=f"]}}}),
        ("1.1.0", {"containerEdits": {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}}),
    ],
)
def test_a_file_has_only_what_its_version_knows(version: str, change: dict[str, Any]) -> None:
    """The oldest version that has everything is found, it is accepted, the one before is not."""
    found = parse_spec(document({}) | change, "f")
    assert minimum_version(found) == version
    assert parse_spec(document({}) | change | {"cdiVersion": f"v{version}"}, "f").cdi_version == f"v{version}"
    if before := VERSIONS[: VERSIONS.index(version)]:
        with pytest.raises(ContainerError, match=f"came with {version}"):
            parse_spec(document({}) | change | {"cdiVersion": before[-1]}, "f")


def test_names() -> None:
    """A name without a kind is none, nor is a path."""
    assert parse_name("nvidia.com/gpu=0:1") == Name("nvidia.com/gpu", "0:1")
    assert str(Name("nvidia.com/gpu", "all")) == "nvidia.com/gpu=all"
    for text in ("/dev/x=1", "gpu=0", "a/b", "a/b=", "a/b=-", "a/b=x/y", "", "a b/c=d"):
        assert parse_name(text) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_nonsense_is_an_error_and_nothing_else(value: object) -> None:
    """Whatever JSON can say."""
    with pytest.raises(ContainerError):
        parse_spec(value, "f")


def test_a_spec_is_written_as_it_is_read() -> None:
    """Field names are the specification's."""
    text = document(
        {
            "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b", "fileMode": 384, "permissions": "rw"}],
            "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/h", "args": ["h"]}],
            "additionalGids": [4],
            "intelRdt": {"closID": "c", "l3CacheSchema": "x", "memBwSchema": "y", "enableMonitoring": True},
        }
    )
    assert msgspec.json.decode(msgspec.json.encode(parse_spec(text, "f"))) == text
    assert isinstance(parse_spec(text, "f"), Spec)
