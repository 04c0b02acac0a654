"""Names of containers."""

import pytest

from mlbox.errors import UsageError
from mlbox.runtime.names import check_name, random_name


def test_random_names_are_names() -> None:
    """Two words, and enough of them that names differ."""
    names = {random_name() for _ in range(200)}
    assert len(names) > 150
    assert all(check_name(name).count("-") == 1 for name in names)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "..", "a" * 129, "é", "a\n"])
def test_names_that_are_none(name: str) -> None:
    """What could be read as a path or an option is refused."""
    with pytest.raises(UsageError):
        check_name(name)
