"""Getting one commit of a git repository as plain files."""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mlbox import process
from mlbox.errors import FetchError, ProcessError
from mlbox.http import is_offline, redact, redact_text, without_credentials

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_TIMEOUT = 900.0
_PASSED = ("SSH_AUTH_SOCK", "GIT_SSL_CAINFO")
# Nothing of the repository or of the host runs: no hooks, filters, prompts or ext:: transport.
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
}


def checkout(url: str, commit: str, folder: Path) -> None:
    """Make `folder` the tree of `commit` of the repository at `url`, submodules included, without any .git.

    FetchError when git is missing, the repository cannot be reached or has no such commit.
    """
    if not _COMMIT.fullmatch(commit):
        raise FetchError(f"{redact(url)}: not a full commit: {commit!r}", hint="run 'mlbox lock' again")
    _checked(url)
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--template=", url=url)
    try:
        _git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", url, commit, url=url)
    except FetchError:  # not every server gives a bare commit
        _git(folder, "fetch", "--quiet", "--no-tags", url, "+refs/*:refs/remotes/all/*", url=url)
    _git(folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", commit, url=url)
    if (folder / ".gitmodules").exists():
        _git(folder, "remote", "add", "origin", url, url=url)
        _git(folder, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", url=url)
    for git in [folder / ".git", *folder.rglob(".git")]:
        if git.is_dir() and not git.is_symlink():
            shutil.rmtree(git)
        else:
            git.unlink(missing_ok=True)


def pin_commit(url: str, ref: str) -> str:
    """Return the commit that branch, tag or commit `ref` of the repository at `url` names now."""
    if _COMMIT.fullmatch(ref):
        return ref
    _checked(url)
    # An annotated tag is an object of its own; '^{}' is the commit that it names.
    listed = _git(Path.cwd(), "ls-remote", "--", url, ref, f"{ref}^{{}}", url=url).decode(errors="replace")
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
    for name in (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
        if _COMMIT.fullmatch(found.get(name, "")):
            return found[name]
    raise FetchError(
        f"{redact(url)}: no branch or tag {ref!r}", hint="correct the name after '@', or give a full commit"
    )


def plain_url(url: str) -> str:
    """Return `url` as a lock may keep it: no password, and no user except for ssh, where it is part of the address."""
    parts = urlsplit(url)
    if parts.scheme == "ssh" and parts.username:
        return urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}"))
    return without_credentials(url)


def _checked(url: str) -> None:
    if url.startswith("-") or "::" in url.split("/")[0]:
        raise FetchError(f"{redact(url)}: not an address of a repository")
    if is_offline() and "://" in url and not url.startswith("file:"):
        raise FetchError(
            f"{redact(url)}: MLBOX_OFFLINE is set, and this repository is on the network",
            hint="what was built of it is taken from a bundle with 'mlbox bundle load --trust', or 'mlbox cache pull'",
        )


def _git(folder: Path, *args: str, url: str) -> bytes:
    env = {name: os.environ[name] for name in _PASSED if name in os.environ} | _ENVIRONMENT
    if is_offline():
        env["GIT_ALLOW_PROTOCOL"] = "file"  # submodules too
    argv = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-c", "core.symlinks=true", *args]
    try:
        return process.run(argv, env=env, cwd=folder, timeout=_TIMEOUT).stdout
    except ProcessError as problem:
        if problem.returncode == 127:
            raise FetchError(
                f"{redact(url)}: git is needed to get this repository, and it is not installed",
                hint="install git (apt-get install git)",
            ) from problem
        reason = redact_text(problem.stderr.strip() or "git gave no reason").splitlines()[-1]
        raise FetchError(
            f"{redact(url)}: {reason}", hint="is the address right, and may this machine read the repository?"
        ) from problem
