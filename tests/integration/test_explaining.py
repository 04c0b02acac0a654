"""Failures of real containers, explained by the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.program import Program
from fakes.trees import make_image, make_layer

from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store

pytestmark = pytest.mark.integration
WORKER = "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error."


@pytest.fixture
def mlbox(home: Home, tmp_path: Path, need: Callable[[str], str]) -> Program:
    """The program, with an image of busybox called box:1."""
    need("runc")
    store = Store(home)
    names = dict.fromkeys(("bin/sh", "bin/echo", "bin/sleep", "bin/dd", "bin/cat"), "busybox")
    files = {"bin/busybox": Path(need("busybox")).read_bytes(), **names}
    image = make_image(store, make_layer(store, "box", files))
    store.images.tag(image.digest, parse_reference("box:1"))
    store.close()
    return Program(home.root, tmp_path)


def test_a_failed_run_says_why(mlbox: Program) -> None:
    """After the program's own output, with this container's numbers, also when the container is gone already."""
    script = f"echo 'epoch 1'; echo '{WORKER}' >&2; exit 1"
    done = mlbox.run("run", "--rm", "--shm-size", "64m", "box:1", "sh", "-c", script, code=1)
    assert done.stdout == "epoch 1\n"
    said, why, hint = done.stderr.splitlines()
    assert said == WORKER and "it holds 67.1 MB" in why and hint.startswith("hint: --shm-size 128m")


def test_only_a_failed_run(mlbox: Program) -> None:
    """Who ends well, and who fails for reasons of its own, is left alone."""
    for code in (0, 1):
        done = mlbox.run(
            "run", "--rm", "box:1", "sh", "-c", f"echo '{WORKER}'; echo 'ValueError: x'; exit {code}", code=code
        )
        assert done.stderr == ""
    assert mlbox.run("run", "--rm", "box:1", "sh", "-c", f"echo '{WORKER}'").stderr == ""


def test_a_container_is_explained_later(mlbox: Program) -> None:
    """From its log; the exit code says whether there was an answer."""
    mlbox.run("run", "--name", "one", "--memory", "32m", "box:1", "sh", "-c", f"echo '{WORKER}'; exit 1", code=1)
    assert "/dev/shm was full: it holds 16.8 MB" in mlbox.out("explain", "one")
    found = json.loads(mlbox.out("explain", "one", "--format", "json"))
    assert (found["id"], found["line"]) == ("shared-memory", WORKER)
    mlbox.run("run", "--name", "two", "box:1", "sh", "-c", "echo all is well; exit 1", code=1)
    assert "nothing in its last output" in mlbox.run("explain", "two", code=1).stderr
    mlbox.run("rm", "one", "two")


def test_the_kernels_kill_is_told_from_others(mlbox: Program) -> None:
    """By what the kernel counted."""
    fill = "dd if=/dev/zero of=/dev/null bs=64M count=1"
    done = mlbox.run(
        "run", "--rm", "--memory", "16m", "--memory-swap", "16m", "box:1", "sh", "-c", f"exec {fill}", code=137
    )
    assert "it used more than its memory limit, 16.8 MB" in done.stderr
    done = mlbox.run(
        "run", "--rm", "box:1", "sh", "-c", "exec sleep 60 & kill -9 $!; wait; kill -9 $$; exit 137", code=137
    )
    assert "somebody killed it" in done.stderr


def test_time_that_is_over_is_said(mlbox: Program) -> None:
    """By run, and by ps later."""
    done = mlbox.run("run", "--name", "late", "--for", "1s", "--stop-timeout", "0", "box:1", "sleep", "60", code=137)
    assert "its time (--for) was over" in done.stderr
    assert "exited (its time was over, 137)" in mlbox.out("ps", "-a")
    assert "was over, and it did not end on its own" in mlbox.out("explain", "late")
    mlbox.run("rm", "late")


def test_output_from_a_file_or_a_pipe(mlbox: Program) -> None:
    """Also of hostile programs."""
    (mlbox.cwd / "train.log").write_text(f"\x1b]0;owned\x07\n{WORKER}\n")
    assert "Docker gives it 64 MB" in mlbox.out("explain", "train.log")
    done = mlbox.run("explain", "-", stdin="OSError: [Errno 8] Exec format error: '/x\x9b31m\u202e\x07'\n")
    assert done.stdout.replace("\n", "").isprintable()
    assert "neither a container nor a file" in mlbox.run("explain", "nothing", code=1).stderr
