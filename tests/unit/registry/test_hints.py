"""Errors of registries, archives and bundles say what mends them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlbox.registry

MODULES = sorted(Path(mlbox.registry.__path__[0]).glob("*.py"))
ERRORS = {"RegistryError", "ArchiveError", "StoreError", "UsageError", "NotFoundError"}


def raised(module: Path) -> Iterator[ast.Call]:
    """Yield what a module raises of mlbox's errors."""
    for node in ast.walk(ast.parse(module.read_text())):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS:
            yield call


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_error_has_a_hint(module: Path) -> None:
    """What happened is half of a message."""
    without = [call.lineno for call in raised(module) if "hint" not in {word.arg for word in call.keywords}]
    assert without == []
