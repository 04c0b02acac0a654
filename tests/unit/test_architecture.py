"""The pipeline goes one way: a package imports only what stands before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOTTOM = {"errors", "codec", "files", "process", "events", "paths", "resources", "http", "units", "loader", "elf"}
PARTS = {"oci", "cdi", "linux", "gpu", "project", "lock", "plan", "store", "build"}
PARTS |= {"runtime", "registry", "trust", "report"}
ALLOWED = {
    "oci": BOTTOM,
    "cdi.py": BOTTOM | {"oci"},
    "linux": set(),
    "gpu": BOTTOM | {"oci", "cdi", "linux"},
    "project": BOTTOM | {"oci"},
    "lock": BOTTOM | {"oci", "project"},
    "plan": BOTTOM | {"oci", "project", "lock"},
    "store": BOTTOM | {"oci"},
    "build": BOTTOM | {"oci", "project", "lock", "plan", "store"},
    "runtime": BOTTOM | {"oci", "cdi", "linux", "store", "build"},
    "registry": BOTTOM | {"oci", "store"},
    "trust": BOTTOM | {"oci", "project", "lock", "plan", "store"},
    "report": BOTTOM | {"oci", "project", "lock", "plan", "store"},
    "engine": BOTTOM | PARTS,
    "cli": BOTTOM | PARTS - {"linux"} | {"engine"},
}
MODULES = sorted((ROOT / "mlbox").rglob("*.py"))


def imported(module: Path) -> set[str]:
    """Return the parts of mlbox that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in found if name.startswith("mlbox.")}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(module: Path) -> None:
    """A module imports only the packages before its own."""
    part = module.relative_to(ROOT / "mlbox").parts[0]
    if part in ALLOWED:
        assert imported(module) <= ALLOWED[part] | {part}
    elif part.removesuffix(".py") in BOTTOM:
        assert imported(module) <= BOTTOM
    else:
        assert part in ("__init__.py", "__main__.py")


def test_runtime_takes_only_the_step_from_build() -> None:
    """The runtime knows steps, not builds."""
    for module in (ROOT / "mlbox" / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mlbox.build"):
                assert node.module == "mlbox.build.step"


def test_the_library_never_prints_or_exits() -> None:
    """Only mlbox.cli and the program itself talk and end."""
    for module in MODULES:
        if "cli" in module.parts or module.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", module
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("sys", "exit"), module
