import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlbox.errors import FetchError
from mlbox.lock.python.vcs import checkout, pin_commit, plain_url


def git(folder: Path, *args: str) -> str:
    identity = [
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@y",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgSign=false",
    ]
    done = subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, need: Callable[[str], str]) -> Path:
    need("git")
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "setup.py").write_text("first")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "1")
    git(folder, "tag", "-am", "a tag", "v1")
    (folder / "setup.py").write_text("second")
    git(folder, "commit", "-qam", "2")
    return folder


def test_a_commit_becomes_plain_files(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "v1^{commit}")
    checkout(repository.as_uri(), first, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["setup.py"]
    assert (tmp_path / "out/setup.py").read_text() == "first"


@pytest.mark.parametrize(("ref", "same_as"), [("v1", "v1^{commit}"), ("main", "main"), ("HEAD", "main")])
def test_names_are_pinned_to_commits(repository: Path, ref: str, same_as: str) -> None:
    assert pin_commit(repository.as_uri(), ref) == git(repository, "rev-parse", same_as)


def test_unknown_names_and_repositories_are_said(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no branch or tag 'v9'"):
        pin_commit(repository.as_uri(), "v9")
    with pytest.raises(FetchError, match="nowhere"):
        pin_commit((tmp_path / "nowhere").as_uri(), "main")
    with pytest.raises(FetchError):
        checkout(repository.as_uri(), "0" * 40, tmp_path / "out")


def test_hooks_and_filters_of_the_host_do_not_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (hooks / "post-checkout").chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "template"))
    checkout(repository.as_uri(), git(repository, "rev-parse", "HEAD"), tmp_path / "out")
    assert not mark.exists()


@pytest.mark.parametrize("url", ["--upload-pack=touch x", "ext::sh -c id", "-x"])
def test_dangerous_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not an address of a repository"):
        checkout(url, "a" * 40, tmp_path / "out")
    with pytest.raises(FetchError, match="not an address of a repository"):
        pin_commit(url, "main")


def test_offline_only_what_is_here(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    commit = pin_commit(repository.as_uri(), "main")
    checkout(repository.as_uri(), commit, tmp_path / "tree")
    for url in ("https://git.example/x.git", "ssh://git@git.example/x.git"):
        with pytest.raises(FetchError, match="MLBOX_OFFLINE"):
            checkout(url, commit, tmp_path / "other")


@pytest.mark.parametrize("commit", ["main", "abc", "", "-" * 40])
def test_only_full_commits_are_checked_out(commit: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not a full commit"):
        checkout("https://h.invalid/r", commit, tmp_path / "out")


def test_missing_git_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="not installed") as caught:
        checkout("https://u:secret@h.invalid/r", "a" * 40, tmp_path / "out")
    assert "secret" not in caught.value.message
    assert "install git" in str(caught.value.hint)


def test_passwords_are_not_shown(tmp_path: Path, need: Callable[[str], str]) -> None:
    need("git")
    with pytest.raises(FetchError) as caught:
        pin_commit("http://user:secret@127.0.0.1:1/r", "main")
    assert "secret" not in caught.value.message


def test_what_a_lock_keeps_of_an_address() -> None:
    assert plain_url("https://u:p@h.invalid/r.git") == "https://h.invalid/r.git"
    assert plain_url("ssh://git:p@h.invalid/r.git") == "ssh://git@h.invalid/r.git"
    assert plain_url("ssh://git@h.invalid:22/r") == "ssh://git@h.invalid:22/r"
