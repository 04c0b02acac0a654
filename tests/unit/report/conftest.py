from collections.abc import Iterator

import pytest

from mlbox.paths import Home
from mlbox.store.store import Store


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """An empty store, closed at the end."""
    store = Store(home)
    yield store
    store.close()
