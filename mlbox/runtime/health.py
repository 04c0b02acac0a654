"""Waiting until a service answers."""

import http.client
import time
from collections.abc import Callable

from mlbox.errors import ContainerError

_ONE_TRY = 5.0


def answers(port: int, path: str) -> bool:
    """Whether GET `path` on 127.0.0.1:`port` is answered with a 2xx status now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ONE_TRY)
    try:
        connection.request("GET", path, headers={"Host": f"127.0.0.1:{port}"})
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_healthy(
    port: int, path: str, *, ended: Callable[[float], bool], timeout: float = 60.0, interval: float = 0.1
) -> None:
    """Return when the service answers.

    `ended(seconds)` waits that long for the container's end (Session.wait fits). Raises ContainerError when
    the container ends first or `timeout` seconds pass.
    """
    deadline = time.monotonic() + timeout
    while not answers(port, path):
        if ended(interval):
            raise ContainerError("the service ended before it was ready", hint="'mlbox logs' shows what it said")
        if time.monotonic() > deadline:
            raise ContainerError(
                f"nothing healthy at http://127.0.0.1:{port}{path} after {timeout:g} s",
                hint="the program must listen on that port; 'mlbox logs' shows what it says",
            )
