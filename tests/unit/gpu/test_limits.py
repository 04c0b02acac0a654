"""What each user may have, as /etc/mlbox/gpus.toml says."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ContainerError, MlboxError
from mlbox.gpu.limits import Limits, _parsed, check, limits_of

TABLE = """
[default]
gpus = 2
time = "8h"
share = false

[users.ann]
gpus = 8
priority = 2

[users.bob]
time = "90m"
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "gpus.toml"
    path.write_text(TABLE)
    return path


def test_what_a_users_own_section_does_not_say_the_default_says(table: Path) -> None:
    """Key by key."""
    assert limits_of("ann", table) == Limits(gpus=8, time=28800, share=False, priority=2)
    assert limits_of("bob", table) == Limits(gpus=2, time=5400, share=False)
    assert limits_of("eve", table) == Limits(gpus=2, time=28800, share=False)


def test_the_default_is_not_for_root(table: Path, tmp_path: Path) -> None:
    """But a section of its own is; without a file nobody has limits."""
    assert limits_of("root", table) == Limits()
    table.write_text("[default]\ngpus = 1\n[users.root]\npriority = -5\n")
    assert limits_of("root", table) == Limits(priority=-5)
    assert limits_of("eve", tmp_path / "none") == Limits()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[default]\ngpu = 1", "unknown field `gpu`, at `default`"),
        ("[defaults]\ngpus = 1", "unknown field `defaults`"),
        ("gpus = 1", "unknown field `gpus`"),
        ("[users.ann]\ngpus = '1'", r"at `users\[...\].gpus`"),
        ("[users.ann]\ngpus = -1", r"users.ann.gpus: not a number of GPUs"),
        ("[users.ann]\ngpus = true", "gpus"),
        ("[default]\ntime = 8", "default.time"),
        ("[default]\ntime = '8 hours'", "default.time: not a time"),
        ("[default]\npriority = 1000", "default.priority"),
        ("[default]\nshare = 'no'", "default.share"),
        ("[default\n", "gpus.toml"),
        ("users = 3", "users"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, where: str) -> None:
    """Also in the section of somebody else: a limit that is not meant as it is written is none."""
    path = tmp_path / "gpus.toml"
    path.write_text(text)
    with pytest.raises(MlboxError, match=where) as problem:
        limits_of("eve", path)
    assert str(path) in problem.value.message


def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    """It may say no."""
    with pytest.raises(MlboxError, match="cannot be read"):
        limits_of("eve", tmp_path)


@given(st.binary(max_size=200))
def test_any_file_is_understood_or_refused(data: bytes) -> None:
    """Nothing else happens."""
    with suppress(MlboxError):
        _parsed(data, Path("gpus.toml"))


def test_what_is_more_than_the_limits_is_refused() -> None:
    """However long one waits; the hint says what would be allowed."""
    limits = Limits(gpus=2, time=5400, share=False)
    check(limits, "eve", count=2, seconds=5400, share=False)
    with pytest.raises(ContainerError, match="2 GPUs at once, not 3"):
        check(limits, "eve", count=3, seconds=60, share=False)
    with pytest.raises(ContainerError, match="may not share"):
        check(limits, "eve", count=1, seconds=60, share=True)
    for seconds in (None, 5401):
        with pytest.raises(ContainerError, match="for 90m at most") as problem:
            check(limits, "eve", count=1, seconds=seconds, share=False)
        assert (problem.value.hint or "").startswith("--for 90m")
    check(Limits(), "eve", count=99, seconds=None, share=True)
