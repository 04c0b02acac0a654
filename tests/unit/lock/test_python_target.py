import pytest
from packaging.tags import Tag

from mlbox.lock.model import Target
from mlbox.lock.python.model import File
from mlbox.lock.python.target import best_file, marker_environment, platforms, target_tags

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
ARM = Target(arch="arm64", python="3.12", python_full="3.12.1", glibc="2.28")


def files(*names: str) -> tuple[File, ...]:
    return tuple(File(filename=name, url=f"https://h/{name}", sha256="a" * 64) for name in names)


def best(*names: str, target: Target = TARGET) -> str:
    found = best_file(files(*names), target)
    return found.filename if found else ""


def test_platforms_follow_the_glibc() -> None:
    found = list(platforms(TARGET))
    assert found[0] == "manylinux_2_36_x86_64"
    assert found[-1] == "linux_x86_64"
    assert found.index("manylinux_2_17_x86_64") + 1 == found.index("manylinux2014_x86_64")
    assert {"manylinux1_x86_64", "manylinux2010_x86_64"} <= set(found)
    assert "manylinux_2_37_x86_64" not in found
    arm = list(platforms(ARM))
    assert arm[0] == "manylinux_2_28_aarch64"
    assert "manylinux2010_aarch64" not in arm
    assert "manylinux2014_aarch64" in arm


def test_tags_are_those_that_pip_has_for_such_a_target() -> None:
    """pip, told the same platforms, is the authority; only the old names it repeats in another place."""
    from pip._internal.models.target_python import TargetPython

    target = TargetPython(
        platforms=list(platforms(TARGET)), py_version_info=(3, 11), abis=["cp311"], implementation="cp"
    )
    ours = [str(tag) for tag in target_tags(TARGET)]
    theirs = [str(tag) for tag in target.get_sorted_tags()]
    assert set(ours) == set(theirs)
    assert [tag for tag in ours if "manylinux_" in tag] == [tag for tag in theirs if "manylinux_" in tag]


def test_tags_do_not_depend_on_this_interpreter() -> None:
    tags = target_tags(ARM)
    assert tags[0] == Tag("cp312", "cp312", "manylinux_2_28_aarch64")
    assert Tag("cp39", "abi3", "manylinux_2_17_aarch64") in tags
    assert Tag("py3", "none", "any") in tags
    assert not any(tag.platform.endswith("x86_64") for tag in tags)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 1),
        (["a-1-cp311-cp311-manylinux2014_x86_64.whl", "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"], 1),
        (["a-1-cp37-abi3-manylinux1_x86_64.whl", "a-1-cp311-cp311-manylinux1_x86_64.whl"], 1),
        (["a-1-py3-none-any.whl", "a-1.tar.gz"], 0),
        (["a-1-cp312-cp312-manylinux2014_x86_64.whl", "a-1.tar.gz"], 1),
        (["a-1-cp311-cp311-manylinux_2_39_x86_64.whl", "a-1-py3-none-any.whl"], 1),
        (["a-1-1-py3-none-any.whl", "a-1-2-py3-none-any.whl", "a-1-py3-none-any.whl"], 1),
        (["a-1.zip", "a-1.tar.gz"], 1),
        (["a-1-cp311-cp311-musllinux_1_2_x86_64.whl", "a-1-cp311-cp311-win_amd64.whl"], None),
        (["a-1-cp311-cp311-manylinux2014_aarch64.whl"], None),
        (["a-1-cp311-cp311t-manylinux2014_x86_64.whl"], None),
        (["notawheel.whl", "a.exe", ""], None),
        ([], None),
    ],
)
def test_the_best_file_is_chosen(names: list[str], expected: int | None) -> None:
    wanted = "" if expected is None else names[expected]
    assert best(*names) == wanted
    assert best(*reversed(names)) == wanted


def test_markers_are_evaluated_for_the_target() -> None:
    from packaging.markers import Marker

    environment = marker_environment(ARM)
    assert Marker("python_version < '3.13' and platform_machine == 'aarch64'").evaluate(environment)
    assert Marker("python_full_version == '3.12.1' and sys_platform == 'linux'").evaluate(environment)
    assert not Marker("os_name == 'nt' or implementation_name != 'cpython'").evaluate(environment)
    assert set(environment) == {
        "implementation_name",
        "implementation_version",
        "os_name",
        "platform_machine",
        "platform_python_implementation",
        "platform_release",
        "platform_system",
        "platform_version",
        "python_full_version",
        "python_version",
        "sys_platform",
    }
