"""Why did it fail? The last that a program said, compared with what is known to go wrong on GPU hosts."""

import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

import msgspec

from mlbox.engine.facts import Facts, Subject
from mlbox.errors import NotFoundError
from mlbox.gpu.failures import Explanation, explain, failure_table
from mlbox.gpu.model import Roots
from mlbox.oci.runtime import Spec
from mlbox.runtime.containers import Containers
from mlbox.runtime.log import read_end
from mlbox.runtime.record import Container
from mlbox.runtime.session import Session
from mlbox.store.store import Store

LONGEST = 256 << 10
"""Bytes at the end of a log that are read."""
_CHUNK = 64 << 10


def explain_container(containers: Containers, name: str, roots: Roots | None = None) -> Explanation | None:
    """Return why a container failed, or what its output so far says; None when it is nothing that is known."""
    container = containers.get(name)
    folder = containers.files(container)
    subject = Subject(
        containers=containers,
        container=container,
        spec=_spec(folder.read("bundle/config.json")),
        exit_code=container.state.exit_code,
        oom_killed=container.state.oom_killed,
        timed_out=container.state.timed_out,
        roots=roots or Roots(),
    )
    return _explain(subject, read_end(folder.log, LONGEST))


def explain_session(
    containers: Containers, container: Container, spec: bytes, session: Session, roots: Roots | None = None
) -> Explanation | None:
    """Return why the program of a session failed that has ended; of its container only `spec` need be left.

    None when that is not known, and after an interrupt, whose reason everybody knows.
    """
    ended = session.ended
    if ended is None or not ended.exit_code or session.was_interrupted:
        return None
    subject = Subject(
        containers=containers,
        container=container,
        spec=_spec(spec),
        exit_code=ended.exit_code,
        oom_killed=ended.oom_killed,
        timed_out=ended.timed_out,
        roots=roots or Roots(),
    )
    return _explain(subject, session.tail.decode("utf-8", "replace"))


def explain_output(containers: Containers, text: str, roots: Roots | None = None) -> Explanation | None:
    """Return what the output of any program says, from this host or another."""
    return _explain(Subject(containers=containers, roots=roots or Roots()), text)


def output_of(path: Path) -> str:
    """Return the end of a file; raises NotFoundError."""
    try:
        with path.open("rb") as file:
            return end_of(file)
    except OSError as problem:
        raise NotFoundError(
            f"{path}: neither a container nor a file that can be read ({problem.strerror})",
            hint="'mlbox ps -a' lists containers; - reads what a program says",
        ) from problem


def end_of(file: BinaryIO) -> str:
    """Read a stream to its end and return the last of it."""
    if file.seekable():
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LONGEST))
    chunks: deque[bytes] = deque(maxlen=LONGEST // _CHUNK + 1)
    while chunk := file.read(_CHUNK):
        chunks.append(chunk)
    return b"".join(chunks)[-LONGEST:].decode("utf-8", "replace")


def _spec(data: bytes) -> Spec | None:
    try:
        return msgspec.json.decode(data, type=Spec)
    except msgspec.DecodeError:
        return None


def _explain(subject: Subject, text: str) -> Explanation | None:
    if subject.container is None:
        return explain(failure_table(), text, None, Facts(subject, None))
    store = Store(subject.containers.home)
    try:
        with store.using():
            return explain(failure_table(), text, subject.exit_code, Facts(subject, store))
    finally:
        store.close()
