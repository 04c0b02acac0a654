"""A fake index and the calls that lock against it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.index import FakeIndex, make_wheel
from fakes.server import Server, serving

from mlbox.http import Http, Limits
from mlbox.lock.model import Target
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.paths import Home
from mlbox.project.model import IndexOptions, Project, Requirement, Settings

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")


class Desk:
    """A fake index and the calls that lock against it."""

    def __init__(self, server: Server, root: Path, home: Home) -> None:
        self.server = server
        self.root = root
        self.home = home
        self.index = FakeIndex(server)
        self.notes: list[str] = []

    def step(self, what: str) -> None: ...
    def expect(self, what: str, total: int) -> None: ...
    def advance(self, what: str, amount: int) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)

    def wheel(self, name: str, version: str, **kw: Any) -> bytes:
        return self.index.add(make_wheel(name, version, **kw))

    def project(self, *lines: str, constraints: tuple[str, ...] = (), index: Any = None, **settings: Any) -> Project:
        def requirement(line: str, number: int) -> Requirement:
            kind = "vcs" if "git+" in line else "url" if "://" in line else "path" if line.startswith(".") else "named"
            return Requirement(text=line, origin=f"requirements.txt:{number}", kind=kind)  # type: ignore[arg-type]

        return Project(
            root=self.root,
            name="x",
            settings=Settings(**{"pip": False, "index_url": self.index.url, "accelerator": "default", **settings}),
            sources=(),
            requirements=tuple(requirement(line, number) for number, line in enumerate(lines, 1)),
            constraints=tuple(Requirement(text=line, origin="c.txt:1") for line in constraints),
            index=index or IndexOptions(),
        )

    def lock(self, project: Project, target: Target = TARGET, **kw: Any) -> LockedPython:
        http = Http(limits=Limits(connect=60, read=60, attempts=2), sleep=lambda seconds: None)
        return lock_python(project, target, http=http, listener=self, home=self.home, **kw)


@pytest.fixture
def desk(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache/uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    (tmp_path / "project").mkdir()
    with serving() as server:
        yield Desk(server, tmp_path / "project", home)
