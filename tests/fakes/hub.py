"""Debian's docker-registry on loopback, for tests that want the real thing."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes.containers import wait_for

_LISTENS = re.compile(rb'msg="listening on (127\.0\.0\.1:\d+)')


@contextmanager
def docker_registry(folder: Path, program: str, **http: object) -> Iterator[str]:
    """Run it with its data in `folder` and these settings of `http` and `auth`; yield its host.

    The kernel picks the port, so none can be taken by somebody else in between.
    """
    auth = http.pop("auth", None)
    config = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "x", **http},
        **({"auth": auth} if auth else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.yml").write_text(json.dumps(config))  # YAML, too
    log = folder / "registry.log"
    with log.open("wb") as stderr:
        server = subprocess.Popen([program, "serve", str(folder / "registry.yml")], stderr=stderr)

    def host() -> str:
        assert server.poll() is None, log.read_text()
        found = _LISTENS.search(log.read_bytes())
        return found[1].decode() if found else ""

    try:
        yield wait_for(host, "docker-registry")
    finally:
        server.terminate()
        server.wait(60)
