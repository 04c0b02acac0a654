"""`--device`: nodes of the host and devices of CDI files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mlbox.cdi import DeviceNode
from mlbox.engine.devices import edits_for, read_devices
from mlbox.errors import ContainerError

VENDOR = "vendor.com/gpu"


def write(path: Path, name: str = "0", kind: str = VENDOR, **edits: Any) -> Path:
    """Write a CDI file with one device."""
    document = {
        "cdiVersion": "0.5.0",
        "kind": kind,
        "containerEdits": {"env": ["COMMON=1"]},
        "devices": [{"name": name, "containerEdits": edits or {"env": [f"FROM={path.name}"]}}],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_a_node_by_its_path() -> None:
    """At the same path, at another, with less than all access."""
    (node,) = edits_for(["/dev/null"]).device_nodes
    assert node == DeviceNode(path="/dev/null", host_path="/dev/null", permissions="rwm")
    (node,) = edits_for(["/dev/null:/dev/nothing"]).device_nodes
    assert (node.path, node.permissions) == ("/dev/nothing", "rwm")
    (node,) = edits_for(["/dev/null:/dev/nothing:r"]).device_nodes
    assert (node.path, node.host_path, node.permissions) == ("/dev/nothing", "/dev/null", "r")
    (node,) = edits_for(["/dev/null:rw"]).device_nodes
    assert (node.path, node.permissions) == ("/dev/null", "rw")


def test_a_folder_of_nodes(tmp_path: Path) -> None:
    """Every node in it, and nothing else that lies there."""
    os.mkfifo(tmp_path / "b")
    (tmp_path / "a").symlink_to("/dev/null")
    (tmp_path / "notes").write_text("")
    (tmp_path / "unplugged").symlink_to("/nothing/there")
    (tmp_path / "folder").mkdir()
    nodes = edits_for([f"{tmp_path}/:/dev/dri"]).device_nodes
    assert [(node.path, node.host_path) for node in nodes] == [
        ("/dev/dri/a", f"{tmp_path}/a"),
        ("/dev/dri/b", f"{tmp_path}/b"),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("/dev/no-such-node", "No such file"),
        ("/etc/passwd", "is no device"),
        ("/etc", "is no device, and no folder"),
        ("dev/null", "not a device"),
        ("/dev/../etc", "not a device"),
        ("/dev/null:/a:/b:r", "not a device"),
        ("/dev/null:relative", "not a device"),
        ("/", "not a device"),
        ("", "not a device"),
        ("vendor.com/gpu=9", "no CDI device vendor.com/gpu=9"),
    ],
)
def test_what_is_no_device_is_said_so(asked: str, message: str, tmp_path: Path) -> None:
    """Before a container is made."""
    with pytest.raises(ContainerError, match=message):
        edits_for([asked], [tmp_path])


def test_devices_of_a_file_share_its_common_edits(tmp_path: Path) -> None:
    """Which come once, before the devices' own."""
    path = write(tmp_path / "a.json")
    document = json.loads(path.read_text())
    document["devices"].append({"name": "1", "containerEdits": {"env": ["SECOND=1"]}})
    path.write_text(json.dumps(document))
    edits = edits_for([f"{VENDOR}=0", "/dev/null", f"{VENDOR}=1"], [tmp_path])
    assert edits.env == ("COMMON=1", "FROM=a.json", "SECOND=1")
    assert len(edits.device_nodes) == 1


def test_the_later_folder_counts(tmp_path: Path) -> None:
    """/var/run/cdi is newer than /etc/cdi; it may also settle a conflict."""
    static, dynamic = tmp_path / "etc", tmp_path / "run"
    write(static / "a.json")
    write(dynamic / "b.json")
    assert "FROM=b.json" in edits_for([f"{VENDOR}=0"], [static, dynamic]).env
    write(static / "c.json")
    assert "FROM=b.json" in edits_for([f"{VENDOR}=0"], [static, dynamic]).env


def test_two_files_of_one_folder_are_a_conflict(tmp_path: Path) -> None:
    """Nobody knows which is meant; the other devices are not touched by it."""
    write(tmp_path / "a.json")
    write(tmp_path / "b.json")
    write(tmp_path / "c.json", name="1")
    with pytest.raises(ContainerError, match=r"defined by .*a\.json and by .*b\.json"):
        edits_for([f"{VENDOR}=0"], [tmp_path])
    assert edits_for([f"{VENDOR}=1"], [tmp_path]).env


def test_yaml_is_read_too(tmp_path: Path) -> None:
    """As version 1.2 has it: 'on' is a word."""
    (tmp_path / "a.yaml").write_text(
        "cdiVersion: 0.5.0\nkind: vendor.com/gpu\ndevices:\n- name: on\n  containerEdits:\n    env: [A=1]\n"
    )
    assert edits_for([f"{VENDOR}=on"], [tmp_path]).env == ("A=1",)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"{"),
        ("a.json", b"[" * 100_000),
        ("a.json", b"\xff"),
        ("a.yaml", b"a: [b"),
        ("a.yaml", b"- " * 50_000),
        ("a.yaml", b"!!python/object/apply:os.system ['true']"),
        ("a.yaml", b"\xff\xfe\x00"),
        ("a.yaml", b""),
        ("a.json", b" " * (9 << 20)),
    ],
)
def test_a_damaged_file_hides_no_other(name: str, data: bytes, tmp_path: Path) -> None:
    """It is named when a device is not found."""
    (tmp_path / name).write_bytes(data)
    write(tmp_path / "good.json")
    (tmp_path / "README.txt").write_text("no CDI file")
    found = read_devices([tmp_path, tmp_path / "missing"])
    assert [str(one) for one in found.devices] == [f"{VENDOR}=0"]
    assert len(found.problems) == 1 and name in found.problems[0]
    with pytest.raises(ContainerError, match=name):
        edits_for([f"{VENDOR}=7"], [tmp_path])
