"""A key pair and a second one, made once: making and opening keys is slow on purpose."""

from pathlib import Path

import pytest

from mlbox.trust.keys import PrivateKey, generate, load_private

PASSWORD = b"correct horse"


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a key pair."""
    return generate(tmp_path_factory.mktemp("keys") / "ours", PASSWORD)


@pytest.fixture(scope="session")
def key(key_files: tuple[Path, Path]) -> PrivateKey:
    """A key that signs."""
    return load_private(key_files[0], lambda: PASSWORD)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    """Somebody else's key."""
    private, _ = generate(tmp_path_factory.mktemp("keys") / "theirs", PASSWORD)
    return load_private(private, lambda: PASSWORD)
