"""Ignore files by their own rules: git's are compared with git, Docker's with its documentation."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbox.build.ignore import DockerIgnore, never, patterns, project_ignore, secret
from mlbox.build.scan import scan_project
from mlbox.errors import ProjectError
from mlbox.project.model import Settings


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("a", "a", True),
        ("a", "b/a", False),  # unlike git, patterns start at the root
        ("/a", "a", True),
        ("a/", "a", True),
        ("a", "a/b/c", True),
        ("*/temp*", "somedir/temporary.txt", True),
        ("*/*/temp*", "somedir/subdir/temporary.txt", True),
        ("*/temp*", "a/b/temporary.txt", False),
        ("temp?", "tempa", True),
        ("temp?", "temp/", False),
        ("**/*.go", "x.go", True),
        ("**/*.go", "a/b/x.go", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b", False),
        ("a/**/z", "a/z", True),
        ("a/../b", "b", True),
        ("[a-c].txt", "b.txt", True),
        ("[^a-c].txt", "b.txt", False),
        ("[^a-c].txt", "/.txt", False),
        ("[!a].txt", "b.txt", False),
        ("[[].txt", "[.txt", True),
        ("\\*.txt", "*.txt", True),
        ("\\*.txt", "a.txt", False),
        ("a.b", "axb", False),
        ("# a", "# a", False),
        ("", "a", False),
        (".", "a", False),
    ],
)
def test_docker_patterns(pattern: str, path: str, out: bool) -> None:
    assert bool(DockerIgnore(pattern.encode()).verdict(path, False)) is out


def test_the_last_docker_pattern_decides() -> None:
    rules = DockerIgnore(b"*.md\n!README*.md\nREADME-secret.md\n")
    assert rules.verdict("a.md", False) is True
    assert rules.verdict("README.md", False) is False
    assert rules.verdict("README-secret.md", False) is True
    assert rules.verdict("a.py", False) is None


def test_docker_looks_into_ignored_folders_only_for_exceptions() -> None:
    rules = DockerIgnore(b"data\n!data/keep/*.csv\n!*.md\n")
    assert rules.reaches_into("data")
    assert rules.reaches_into("data/keep")
    assert not DockerIgnore(b"data\n!code/x\n").reaches_into("data")


def test_many_stars_do_not_take_for_ever() -> None:
    rules = DockerIgnore(b"**/**/**/**/**/**/**/**/**/**/**/**/**/**/**/**/x\n")
    assert rules.verdict("/".join("a" * 60), False) is None


def test_a_bad_docker_pattern_is_named() -> None:
    with pytest.raises(ProjectError, match=r"\.dockerignore: bad pattern '\[z-a\]'"):
        DockerIgnore(b"[z-a]")


@pytest.mark.parametrize("name", [".git", "__pycache__", "x.pyc", "demo.egg-info", ".tox", "mlbox.lock"])
def test_what_never_belongs_in_an_image(name: str) -> None:
    assert never(name)


@pytest.mark.parametrize("name", ["git", ".gitignore", "cache", "x.py", "pyproject.toml"])
def test_what_may(name: str) -> None:
    assert not never(name)


def test_secrets() -> None:
    assert all(map(secret, [".env", ".env.local", "key.pem", "id_rsa", ".netrc", ".pypirc", ".aws"]))
    assert not any(map(secret, [".env.example", "env", "id_rsa.pub", "pem", "environment.yml"]))


def test_equal_rules_have_equal_keys(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("a\n")
    first = project_ignore(tmp_path)
    assert first.key == project_ignore(tmp_path).key
    (tmp_path / ".gitignore").write_text("b\n")
    assert first.key != project_ignore(tmp_path).key
    assert patterns(["a"]).key != patterns(["b"]).key


def test_a_huge_ignore_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ProjectError, match="larger than"):
        project_ignore(tmp_path)


PARTS = st.sampled_from(["a", "b", "c.py", "d.txt", "e"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
LINES = st.sampled_from(
    [
        "a",
        "/a",
        "a/",
        "*.py",
        "!c.py",
        "b/*",
        "!b/c.py",
        "**/d.txt",
        "a/**",
        "!a/b",
        "e/**/c.py",
        "# e",
        "\\!x",
        "",
        "?",
    ]
)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.sets(PATHS, max_size=8), outer=st.lists(LINES, max_size=4), inner=st.lists(LINES, max_size=3))
def test_gitignore_files_mean_what_git_says(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], outer: list[str], inner: list[str]
) -> None:
    root = tmp_path_factory.mktemp("repo")
    for path in sorted(files):
        at = root / path
        if not any(parent.is_file() for parent in at.parents) and not at.is_dir():
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text("x")
    (root / ".gitignore").write_text("\n".join(outer))
    if (root / "b").is_dir():
        (root / "b/.gitignore").write_text("\n".join(inner))
    git = ["git", "-c", "core.excludesFile=/dev/null", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = subprocess.run([*git, "ls-files", "-zco", "--exclude-standard"], check=True, capture_output=True)
    wanted = set(filter(None, listed.stdout.decode().split("\0")))
    assert {file.path for file in scan_project(root, Settings(), cache=root / ".git/none")} == wanted
