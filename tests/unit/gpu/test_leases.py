"""Leases: nobody gets what another has, nobody waits for ever, nothing is left of the dead."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlbox.errors import ContainerError
from mlbox.gpu import leases as module
from mlbox.gpu import queue
from mlbox.gpu.choose import Request, Unit, parse_request
from mlbox.gpu.leases import Lease, Leases, Tenant
from mlbox.gpu.model import Gpu

GPUS = tuple(Unit(gpu=Gpu(vendor="nvidia", index=n, minor=n)) for n in range(8))
NOBODY = tuple[str, ...]

TAKER = """
import sys, time
from pathlib import Path
from mlbox.gpu.choose import Unit, parse_request
from mlbox.gpu.leases import Leases, Tenant
from mlbox.gpu.model import Gpu
folder, count, log, seconds = sys.argv[1:]
gpus = tuple(Unit(gpu=Gpu(vendor="nvidia", index=n, minor=n)) for n in range(8))
lease = Leases(Path(folder)).take(gpus, parse_request(count), Tenant(), busy=tuple, wait=True)
ids = [unit.id for unit in lease.units]
for id in ids:
    Path(log, id).touch(exist_ok=False)
time.sleep(float(seconds))
for id in ids:
    Path(log, id).unlink()
lease.close()
print(len(ids), flush=True)
"""


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path / "gpus")


def take(leases: Leases, text: str, *, found: Sequence[Unit] = GPUS, wait: bool = False, shared: bool = False) -> Lease:
    request, tenant = parse_request(text), Tenant(name="me", shared=shared)
    chosen = [unit for unit in found if unit.label in request.devices] or found
    return leases.take(chosen, request, tenant, busy=NOBODY, wait=wait)


def labels(lease: Lease) -> list[str]:
    return [unit.label for unit in lease.units]


def taker(leases: Leases, log: Path, count: str, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", TAKER, str(leases._folder), count, str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_is_held_is_not_given_again(leases: Leases) -> None:
    """Until it is let go; the refusal names who has it."""
    first = take(leases, "device=0,1")
    second = take(leases, "2")
    assert labels(second) == ["2", "3"]
    with pytest.raises(ContainerError, match="0 is held by me"):
        take(leases, "device=0")
    assert [one.id for one in leases.held()] == ["nvidia-0", "nvidia-1", "nvidia-2", "nvidia-3"]
    first.close()
    assert labels(take(leases, "device=0")) == ["0"]
    second.close()


def test_without_enough_nothing_is_held(leases: Leases) -> None:
    """A request that fails takes nothing from others."""
    held = take(leases, "5")
    with pytest.raises(ContainerError, match="not enough free GPUs"):
        take(leases, "4")
    assert len(leases.held()) == 5
    assert labels(take(leases, "3")) == ["5", "6", "7"]
    held.close()


def test_gpus_that_other_programs_use_are_passed_over(leases: Leases) -> None:
    """Nobody asked them."""
    lease = leases.take(GPUS, Request(count=2), Tenant(), busy=lambda: {"nvidia-0", "nvidia-2"})
    assert labels(lease) == ["1", "3"]
    with pytest.raises(ContainerError, match="2 is used by a program that has no lease"):
        leases.take(GPUS[2:3], Request(count=1), Tenant(), busy=lambda: {"nvidia-2"})


def test_what_a_killed_monitor_left_running_keeps_its_gpu(leases: Leases) -> None:
    """Its lease is gone, its program is not; those that share go on sharing, and it gets its own back."""
    alone, shared = Tenant(container="a", name="orphan"), Tenant(container="b", shared=True)
    leases.take(GPUS[:1], Request(count=1), alone, busy=NOBODY).close()
    leases.take(GPUS[1:2], Request(count=1), shared, busy=NOBODY).close()
    with pytest.raises(ContainerError, match="0 is used by what orphan left running"):
        leases.take(GPUS[:2], Request(all=True), Tenant(container="c"), busy=NOBODY, lives=bool)
    assert labels(leases.take(GPUS, Request(count=1), Tenant(container="c"), busy=NOBODY, lives=bool)) == ["2"]
    leases.take(GPUS[:1], Request(count=1), alone, busy=NOBODY, lives=bool).close()
    again = Tenant(container="c", shared=True)
    assert labels(leases.take(GPUS[:2], Request(count=1), again, busy=NOBODY, lives=bool)) == ["1"]


def test_who_only_looks_counts_for_nobody(leases: Leases) -> None:
    """A lease that was let go has its tenant's name, and is locked for a moment by others who look for free ones."""
    leases.take(GPUS, Request(all=True), Tenant(user="ann"), busy=NOBODY).close()
    looking = threading.Event()

    def look() -> tuple[str, ...]:
        looking.set()
        time.sleep(0.3)
        return ("nvidia-0",)

    def fail() -> None:
        with pytest.raises(ContainerError):
            leases.take(GPUS, Request(all=True), Tenant(user="bob"), busy=look)

    other = threading.Thread(target=fail)
    other.start()
    looking.wait(10)
    leases.take(GPUS[1:2], Request(count=1), Tenant(user="ann"), busy=NOBODY, most=1).close()
    other.join(10)


def test_sharing_is_said_on_both_sides(leases: Leases) -> None:
    """Sharers share among themselves, not with who wants it alone."""
    one, two = take(leases, "device=0", shared=True), take(leases, "device=0", shared=True)
    with pytest.raises(ContainerError):
        take(leases, "device=0")
    one.close()
    two.close()
    alone = take(leases, "device=0")
    with pytest.raises(ContainerError):
        take(leases, "device=0", shared=True)
    alone.close()


def test_every_sharer_counts(leases: Leases) -> None:
    """For as long as it lives, whoever came after it; a GPU that one user shares with himself counts once."""
    found = GPUS[:2]

    def share(name: str, most: int | None = None) -> Lease:
        tenant = Tenant(container=name * 4, name=name, user=name, shared=True)
        return leases.take(found[:1], Request(count=1), tenant, busy=NOBODY, most=most)

    def holders() -> list[str]:
        return [one.tenant.name for one in leases.held()]

    ann, bob = share("ann"), share("bob")
    eve = share("eve")
    assert holders() == ["ann", "bob", "eve"]
    bob.close()
    assert holders() == ["ann", "eve"]
    again = share("bob", most=1)
    assert holders() == ["ann", "bob", "eve"], "it has the place of the one that went"
    with pytest.raises(ContainerError, match="ann has 1 GPUs and may have 1"):
        leases.take(found[1:], Request(count=1), Tenant(user="ann"), busy=NOBODY, most=1)
    leases.vacate(found[0].id, "ann" * 4)
    assert holders() == ["bob", "eve"]
    for one in (ann, again, eve):
        one.close()
    assert holders() == []
    alone = leases.take(found[:1], Request(count=1), Tenant(name="zoe", user="zoe"), busy=NOBODY)
    assert holders() == ["zoe"], "what sharers wrote down is gone"
    alone.close()


def test_who_waits_gets_it_at_once(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next look, which never comes: the closed file wakes it."""
    monkeypatch.setattr(module, "_LOOK", 3600)
    held = take(leases, "all")
    threading.Timer(0.3, held.close).start()
    assert labels(take(leases, "device=3", wait=True)) == ["3"]


def test_nobody_passes_those_who_wait(leases: Leases, tmp_path: Path) -> None:
    """One that wants many is not starved by those that want one."""
    held = take(leases, "1")
    waiting = taker(leases, tmp_path, "8", 0)
    wait_for(lambda: leases.waiting() == 1)
    with pytest.raises(ContainerError, match="1 wait for GPUs already"):
        take(leases, "1")
    held.close()
    assert waiting.communicate(timeout=120)[0] == "8\n"
    assert labels(take(leases, "1")) == ["0"]


def test_who_waits_for_one_gpu_is_not_in_the_way_of_others(leases: Leases, tmp_path: Path) -> None:
    """The queue is one of those that want the same."""
    held = take(leases, "device=0")
    waiting = threading.Thread(target=lambda: take(leases, "device=0", wait=True).close())
    waiting.start()
    wait_for(lambda: leases.waiting() == 1)
    assert labels(take(leases, "device=1")) == ["1"]
    with pytest.raises(ContainerError, match="1 wait for GPUs already"):
        take(leases, "all")
    held.close()
    waiting.join(120)
    assert leases.waiting() == 0


def test_the_killed_leave_nothing(leases: Leases, tmp_path: Path) -> None:
    """Neither a lease nor a place in the queue."""
    holder = taker(leases, tmp_path, "8", 60)
    wait_for(lambda: len(leases.held()) == 8)
    waiter = taker(leases, tmp_path, "1", 60)
    wait_for(lambda: leases.waiting() == 1)
    for process in (waiter, holder):
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert leases.waiting() == 0 and leases.held() == ()
    assert len(take(leases, "all").units) == 8


def test_a_lease_outlives_who_took_it_in_a_child(leases: Leases) -> None:
    """As a monitor does: it inherits the open files."""
    lease = take(leases, "device=5")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    lease.close()
    assert [one.id for one in leases.held()] == ["nvidia-5"]
    os.close(write)
    os.waitpid(child, 0)
    assert leases.held() == ()


def test_fifty_at_once_on_eight_gpus(leases: Leases, tmp_path: Path) -> None:
    """No GPU is given twice, all get theirs: each taker makes a file per GPU, which must not be there."""
    log = tmp_path / "log"
    log.mkdir()
    takers = [taker(leases, log, str(1 + n % 4), 0.02) for n in range(50)]
    found = [process.communicate(timeout=120)[0] for process in takers]
    assert [process.returncode for process in takers] == [0] * 50
    assert found == [f"{1 + n % 4}\n" for n in range(50)]
    assert leases.held() == () and list(log.iterdir()) == []


def user(leases: Leases, name: str, count: str, **options: Any) -> Lease:
    """Take GPUs for a user."""
    return leases.take(GPUS, parse_request(count), Tenant(user=name), busy=NOBODY, **options)


def test_a_user_has_no_more_than_the_limit_at_once(leases: Leases) -> None:
    """In all containers together; others are not in the way."""
    first, other = user(leases, "eve", "1", most=2), user(leases, "bob", "2", most=2)
    with pytest.raises(ContainerError, match="eve has 1 GPUs and may have 2 at once, not 2 more"):
        user(leases, "eve", "2", most=2)
    second = user(leases, "eve", "1", most=2)
    first.close()
    third = user(leases, "eve", "1", most=2)
    for lease in (other, second, third):
        lease.close()


def test_who_waits_for_his_own_limit_keeps_nobody_waiting(leases: Leases) -> None:
    """He stands in no queue, and has the GPU as soon as he gave one back."""
    first = user(leases, "eve", "2", most=2)
    said: list[str] = []
    got: list[Lease] = []
    thread = threading.Thread(
        target=lambda: got.append(user(leases, "eve", "1", most=2, wait=True, say=said.append)), daemon=True
    )
    thread.start()
    wait_for(lambda: said)
    assert "waiting: eve has 2 GPUs" in said[0] and leases.waiting() == 0
    assert len(user(leases, "bob", "6").units) == 6
    assert not got
    first.close()
    thread.join(5)
    assert len(got) == 1


def test_two_at_once_do_not_pass_the_limit_together(leases: Leases) -> None:
    """Not even for different GPUs, for which they do not queue."""
    taken: list[Lease] = []

    def one(number: int) -> None:
        with suppress(ContainerError):
            found = [GPUS[number]]
            taken.append(leases.take(found, Request(count=1), Tenant(user="eve"), busy=NOBODY, most=3))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 3


def test_priority_goes_before(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before who stands first already, but not before those who came long enough ago."""
    order: list[str] = []

    def one(name: str, priority: int) -> None:
        with_it = user(leases, name, "8", wait=True, priority=priority)
        order.append(name)
        time.sleep(0.05)
        with_it.close()

    def all_of(*asked: tuple[str, int]) -> list[str]:
        held = user(leases, "root", "1")
        order.clear()
        threads = []
        for count, (name, priority) in enumerate(asked, 1):
            threads.append(threading.Thread(target=one, args=(name, priority)))
            threads[-1].start()
            wait_for(lambda count=count: leases.waiting() == count)
            time.sleep(0.05)
        held.close()
        for thread in threads:
            thread.join(120)
        return order

    assert all_of(("first", 0), ("low", -1), ("high", 2), ("middle", 1)) == ["high", "middle", "first", "low"]
    monkeypatch.setattr(queue, "AHEAD", 0.001)
    assert all_of(("first", 0), ("low", -1), ("high", 2)) == ["first", "low", "high"]


def test_a_lease_is_forgotten_by_its_container_only(leases: Leases) -> None:
    """Before it is let go of."""
    lease = leases.take(GPUS[:1], Request(count=1), Tenant(container="abc", name="job"), busy=NOBODY)
    leases.vacate("nvidia-0", "other")
    assert leases.held()[0].tenant.name == "job"
    leases.vacate("nvidia-0", "abc")
    leases.vacate("nvidia-7", "abc")
    assert leases.held()[0].tenant == Tenant()
    lease.close()


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
