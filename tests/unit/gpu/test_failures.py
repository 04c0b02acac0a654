"""What failing programs say, what it means, and what only looks like it."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import MlboxError
from mlbox.gpu.failures import Explanation, clean, explain, failure_table, printable, read_failure_table

HERE = {"container": "yes", "name": "job", "network": "host", "machine": "x86_64"}
HOST = {"driver": "535.104.05", "driver_libraries": "535.104.05", "driver_cuda": "12.2", "mismatch": "no"}
TRACE = 'Traceback (most recent call last):\n  File "/workspace/train.py", line 12, in <module>\n    main()\n'
DESK = {**HOST, "gpu_names": "NVIDIA GeForce RTX 3090", "gpus_are_for_desks": "yes"}
WORKER = "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's"
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB"
)
LIBGL = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
NVML = "Failed to initialize NVML: Unknown Error"
KERNEL = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
INSUFFICIENT = "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version"
COMPAT = (
    "RuntimeError: Unexpected error from cudaGetDeviceCount(). "
    "Error 804: forward compatibility was attempted on non supported HW"
)
IBV = "node1:81:95 [3] transport/net_ib.cc:812 NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory"


def why(text: str, exit_code: int | None = 1, **facts: str) -> Explanation | None:
    """Explain `text` where these facts are known and no others."""

    def answer(name: str, groups: Mapping[str, str]) -> str:
        return facts.get(name, "")

    return explain(failure_table(), text, exit_code, answer)


KNOWN = [
    ("", 137, {"oom_killed": "yes", "memory": "8.6 GB", "memory_twice": "16g"}, "killed", "its memory limit, 8.6 GB"),
    ("", 137, {"oom_killed": "yes", "memory_limited": "no"}, "killed", "the host was out of memory"),
    (
        "",
        137,
        {"oom_killed": "no", "timed_out": "yes", "stop_timeout": "10", "stop_signal": "SIGTERM"},
        "killed",
        "in the 10 s",
    ),
    ("", 137, {"oom_killed": "no", "timed_out": "no"}, "killed", "somebody killed it"),
    ("", 132, {"missing_instructions": "AVX2"}, "illegal-instruction", "lacks AVX2"),
    (NVML, 255, {"device_problems": "c 195:0 rw is denied", "name": "job"}, "nvml-unknown", "195:0 rw is denied"),
    (NVML, 255, {"device_warning": "c 195:0 rw is denied"}, "nvml-unknown", "lost its GPU"),
    (NVML, None, {"container": "no"}, "nvml-unknown", "daemon-reload"),
    (
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.183",
        18,
        {**HOST, "mismatch": "yes", "driver_libraries": "535.183.01"},
        "nvml-mismatch",
        "are 535.183.01, its kernel module is 535.104.05",
    ),
    (
        TRACE + "pynvml.NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch.",
        1,
        {**HOST, **HERE},
        "nvml-mismatch",
        "the image brings libraries of another one",
    ),
    (
        f"{TRACE}{KERNEL}\nCUDA kernel errors might be asynchronously reported at some other API call.\n",
        1,
        {"unfit": "libtorch_cuda.so has no code for sm_61: sm_75, sm_80", "unfit_fix": "lock an older torch"},
        "no-kernel-image",
        "no code for sm_61",
    ),
    (TRACE + KERNEL, 1, {"architectures": "sm_120"}, "no-kernel-image", "(sm_120)"),
    (INSUFFICIENT, 1, {"given_gpus": "none"}, "driver-too-old", "without a GPU"),
    (INSUFFICIENT, 1, {**HOST, "given_gpus": "1", "accelerator": "cu121"}, "driver-too-old", "driver 535.104.05 runs"),
    (
        TRACE + "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update",
        1,
        {**HOST, "accelerator": "cu121"},
        "driver-too-old-torch",
        "runs in full, 12.2",
    ),
    (TRACE + "RuntimeError: No CUDA GPUs are available", 1, {"given_gpus": "none"}, "no-gpu", "without a GPU"),
    (
        TRACE + "RuntimeError: No CUDA GPUs are available",
        1,
        {"given_gpus": "1", "cuda_visible": "3"},
        "no-gpu",
        "CUDA_VISIBLE_DEVICES is 3",
    ),
    (
        TRACE + "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
        1,
        {"given_gpus": "none"},
        "no-gpu",
        "without a GPU",
    ),
    (TRACE + "RuntimeError: CUDA error: invalid device ordinal", 1, {"given_gpus": "1"}, "invalid-ordinal", "--gpus 1"),
    (TRACE + COMPAT, 1, DESK, "forward-compatibility", "cuda-compat"),
    (
        "RuntimeError: CUDA failed with error forward compatibility was attempted on non supported HW",
        1,
        DESK,
        "forward-compatibility",
        "not for NVIDIA GeForce RTX 3090",
    ),
    (
        "n:202016:202235 [0] misc/shmutils.cc:132 NCCL WARN Error while creating shared memory segment "
        "/dev/shm/nccl-WU88OE (size 9637888), error: No space left on device (28)",
        1,
        {"shm": "64.0 MB", "shm_twice": "128m"},
        "nccl-shared-memory",
        "",
    ),
    (
        "[3] include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device",
        1,
        {"shm": "64.0 MB", "shm_twice": "128m"},
        "nccl-shared-memory",
        "",
    ),
    (
        "[1.2] [n:9:0] ib_md.c:482 UCX  ERROR ibv_reg_mr(address=0x7f, access=0xf) failed: Cannot allocate memory",
        1,
        {"memlock": "65.5 kB", "memlock_host": "less"},
        "nccl-memlock",
        "65.5 kB",
    ),
    (
        "RuntimeError: The server socket has failed to listen on any local network address. "
        "The server socket has failed to bind to [::]:29500 "
        "(errno: 98 - Address already in use). The server socket has failed to bind to "
        "0.0.0.0:29500 (errno: 98 - Address already in use).",
        1,
        {"network": "host", "taken": "29500"},
        "address-in-use",
        "port 29500 was used",
    ),
    (
        "(RayWorkerWrapper pid=1148, ip=10.0.0.7) jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: "
        "Out of memory while trying to allocate 7406166528 bytes.",
        1,
        {"gpu_holders": "other (1, 2 GB)"},
        "cuda-memory",
        "other",
    ),
    (
        TRACE + COMPAT,
        1,
        {**HOST, "mismatch": "yes", "driver_libraries": "550.1"},
        "forward-compatibility",
        "it was updated",
    ),
    (f"{TRACE}{WORKER}", 1, {"shm": "64.0 MB", "shm_twice": "128m"}, "shared-memory", "holds 64.0 MB"),
    (f"{TRACE}{WORKER}", None, {"container": "no"}, "shared-memory", "Docker gives it 64 MB"),
    (
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
        1,
        {"shm": "64.0 MB", "shm_twice": "128m"},
        "shared-memory",
        "",
    ),
    (
        "RuntimeError: unable to write to file </torch_29_1231_0>: No space left on device (28)",
        1,
        {"shm": "64.0 MB", "shm_twice": "128m"},
        "shared-memory",
        "",
    ),
    (
        "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1234'",
        1,
        {"shm": "1.0 MB", "shm_twice": "2m", "disk_full": "yes"},
        "shared-memory",
        "",
    ),
    (
        "n1:7:9 [0] misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-AbC to 9637892 bytes\n"
        "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, unhandled system error",
        1,
        {"shm": "64.0 MB", "shm_twice": "128m"},
        "nccl-shared-memory",
        "NCCL passes",
    ),
    (IBV, 1, {"memlock": "8.4 MB", "memlock_host": "less"}, "nccl-memlock", "the host lets nobody"),
    (IBV, 1, {"memlock": "8.4 MB", "memlock_host": "more"}, "nccl-memlock", "the container may lock 8.4 MB"),
    (
        "urllib3.exceptions.NameResolutionError: Failed to resolve 'hub' (Temporary failure in name resolution)",
        1,
        {"network": "none"},
        "nccl-no-network",
        "--network none",
    ),
    (
        f"[rank3]: {TRACE}[rank3]: {OOM}",
        1,
        {"gpu_holders": "other (12, 80.0 GB)"},
        "cuda-memory",
        "other (12, 80.0 GB)",
    ),
    (
        OOM,
        1,
        {"gpu_holders_known": "yes", "container": "yes", "gpu_memory": "150.1 GB"},
        "cuda-memory",
        "(150.1 GB) was full",
    ),
    (
        TRACE + "AssertionError: Torch not compiled with CUDA enabled",
        1,
        {**HOST, "locked_accelerator": "cpu", "accelerator": "cu121"},
        "cpu-torch",
        "processors only",
    ),
    (
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
        1,
        {"given_gpus": "none"},
        "driver-library",
        "without a GPU",
    ),
    (
        "OSError: libnvidia-encode.so.1: cannot open shared object file: No such file or directory",
        1,
        {"given_gpus": "1", "capabilities": "compute,utility"},
        "driver-library",
        "only what 'compute,utility' needs",
    ),
    (TRACE + LIBGL, 1, {"package": "libgl1"}, "library", "Debian's package libgl1"),
    (
        LIBGL.replace("ImportError", "python: error while loading shared libraries").replace("GL", "gomp"),
        127,
        {"package": "libgomp1"},
        "library",
        "libgomp1",
    ),
    (
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /opt/x/_core.so)",
        1,
        {"glibc": "2.36"},
        "glibc",
        "/opt/x/_core.so was built for glibc 2.38 or newer, and the image has 2.36",
    ),
    (
        "[1234.5] NVRM: Xid (PCI:0000:3b:00): 31, pid=4711, name=python, Ch 00000008, intr 00000000. MMU Fault",
        None,
        {"xid_cause": "MMU", "xid_fix": "look"},
        "xid",
        "Xid 31 on GPU 0000:3b:00",
    ),
    (
        "OSError: [Errno 8] Exec format error: '/workspace/run.sh'",
        1,
        HERE,
        "exec-format",
        "/workspace/run.sh is no program",
    ),
    (
        "bash: line 1: /opt/tool: cannot execute binary file: Exec format error",
        126,
        HERE,
        "exec-format-binary",
        "/opt/tool is a program for another kind of machine than this, x86_64",
    ),
    (
        TRACE + "PermissionError: [Errno 13] Permission denied: '/data/out.pt'",
        1,
        {
            "denied": "/data/out.pt",
            "mount_source": "/home/ann/data",
            "mount_owner": "1000:1000",
            "mount_mode": "755",
            "user": "65534",
        },
        "mount-permission",
        "/home/ann/data of the host, which belongs to 1000:1000 (mode 755)",
    ),
    (
        "OSError: [Errno 30] Read-only file system: '/data/x'",
        1,
        {"denied": "/data/x", "mount_source": "/srv", "mount_readonly": "yes"},
        "read-only",
        "mounted read-only",
    ),
    (
        "OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
        1,
        {"network": "host", "taken": "8000", "port_holder": "uvicorn (7)"},
        "address-in-use",
        "port 8000 is used by uvicorn (7)",
    ),
    (
        "RuntimeError: The server socket has failed to listen on any local network address. port: 29500, "
        "useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        1,
        {"network": "host", "taken": "29500"},
        "address-in-use",
        "port 29500 was used",
    ),
    (
        TRACE + "ModuleNotFoundError: No module named 'cv2'",
        1,
        {"module_locked": "no", "distribution": "opencv-python-headless"},
        "module",
        "it is in opencv-python-headless",
    ),
    (
        TRACE + "ModuleNotFoundError: No module named 'mylib.data'",
        1,
        {"module_folder": "/workspace/src"},
        "module",
        "mylib lies in the image at /workspace/src",
    ),
    (
        "RuntimeError: received 0 items of ancdata",
        1,
        {"nofile": "1024", "nofile_most": "1048576"},
        "open-files",
        "1024 files",
    ),
    (
        "OSError: [Errno 28] No space left on device",
        1,
        {"disk_full": "yes", "disk_free": "0 B", "disk": "/var/lib/mlbox"},
        "disk-full",
        "0 B left",
    ),
]


@pytest.mark.parametrize(("text", "code", "facts", "id", "part"), KNOWN, ids=lambda value: str(value)[:30])
def test_what_is_known_is_explained(text: str, code: int, facts: dict[str, str], id: str, part: str) -> None:
    """With the facts of this host in it."""
    found = why(text, code, **facts)
    assert found is not None and found.id == id
    assert part in found.cause and found.fix and "{" not in found.cause + found.fix


@pytest.mark.parametrize(("text", "code", "facts", "id", "part"), KNOWN, ids=lambda value: str(value)[:30])
def test_without_its_facts_nothing_is_claimed(text: str, code: int, facts: dict[str, str], id: str, part: str) -> None:
    """But for the one that needs none."""
    found = why(text, code)
    assert found is None or found.id == "no-kernel-image"


def test_every_rule_is_tested() -> None:
    """Each has an example here."""
    assert {failure.id for failure in failure_table().failure} == {id for *_, id, _ in KNOWN}


ALL = {
    name: "yes"
    for failure in failure_table().failure
    for case in failure.case
    for name in (*case.facts, *case.when, *(value for value in case.when))
} | {
    "memory_limited": "no",
    "given_gpus": "none",
    "network": "none",
    "module_locked": "no",
    "locked_accelerator": "cpu",
}

ALIKE = [
    ("epoch 3 loss 0.12\n", 1),
    ("WARNING: CUDA out of memory, trying again with a smaller batch\nepoch 4\n", 1),
    ("skipping batch: CUDA out of memory\n", 1),
    ("# docs: if you see 'Failed to initialize NVML: Unknown Error' restart\n", 1),
    ("Failed to initialize NVML: Driver Not Loaded", 1),
    ("checking that no kernel image is available for execution on the device is handled ... ok", 1),
    ("Bus error handler installed", 1),
    ("Bus error (core dumped)", 135),
    ("DataLoader worker (pid 12) is killed by signal: Killed.", 1),
    ("DataLoader worker (pid 12) is killed by signal: Segmentation fault.", 1),
    ("No space left on device is what a full /dev/shm/ says", 1),
    (f"{OOM}\nretrying\n{TRACE}ValueError: loss is nan", 1),
    (f"{TRACE}{OOM}\n{TRACE}KeyError: 'weights'", 1),
    (f"{LIBGL}\n{TRACE}FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'", 1),
    ("could not load libGL.so.1, using software rendering", 1),
    ("INFO NCCL Call to ibv_reg_mr retried", 1),
    ("[1] NCCL WARN Cuda failure 'invalid argument'", 1),
    ("[1] NCCL WARN Error while creating shared memory segment /dev/shm/nccl-NzwJ7O (size 9637888)", 1),
    ("[1] NCCL WARN Error: failed to extend /dev/shm/nccl-a to 4 bytes, error: Operation not permitted (1)", 1),
    ("[1] NCCL WARN Call to ibv_reg_mr failed with error Bad address", 1),
    ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.104.05", 1),
    ("NVRM: Xid decoding is on", 1),
    ("OSError: [Errno 13] Permission denied", 1),
    ("fatal: Permission denied (publickey).", 1),
    ("Address already in use, trying port 8001", 1),
    ("optional dependency missing: No module named 'apex'", 1),
    ("print(\"ModuleNotFoundError: No module named 'x'\")", 1),
    ("Illegal instruction count: 3", 1),
    ("found GLIBC_2.38 in the base", 1),
    ("RuntimeError: Torch not compiled with CUDA enabled builds of apex are needed", 1),
    ("", 1),
    ("", 139),
    ("", 143),
]


@pytest.mark.parametrize(("text", "code"), ALIKE, ids=lambda value: str(value)[:40])
def test_what_only_looks_like_it_is_left_alone(text: str, code: int) -> None:
    """Even where every fact is known."""
    assert why(text, code, **ALL) is None


def test_the_last_error_counts_and_its_causes() -> None:
    """What it was raised from is looked at, what was dealt with before is not; waiting ranks say nothing."""
    chained = (
        f"{TRACE}{OOM}\n\nDuring handling of the above exception, another exception occurred:\n\n{TRACE}ValueError: x"
    )
    facts = {"gpu_holders": "other (1, 2 GB)"}
    assert (found := why(chained, **facts)) is not None and found.id == "cuda-memory"
    launched = (
        f"[rank1]: {OOM}\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n=====\ntrain.py FAILED\n"
    )
    assert (found := why(launched, **facts)) is not None and found.line == OOM
    assert why(f"{OOM}\nValueError: x", **facts) is None


def test_a_code_that_says_enough_comes_before_what_was_said() -> None:
    """The kernel's word counts more."""
    found = why(WORKER, 137, oom_killed="yes", memory="1 GB", memory_twice="2g", shm="1 MB", shm_twice="2m")
    assert found is not None and found.id == "killed"


def test_colours_and_ranks_are_not_in_the_way() -> None:
    """As programs print them on terminals, and launchers before them."""
    assert clean("\x1b[31;1m[rank12]: ValueError: x\x1b[0m") == "ValueError: x"
    assert clean("[1,0]<stderr>: oh") == "oh"
    assert clean("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"


def test_hostile_output_is_shown_without_harm() -> None:
    """Control characters and changes of direction come from a program that we do not trust."""
    path = "/x\x07\u202e\x9b31m"
    found = why(f"OSError: [Errno 8] Exec format error: '{path}'", machine="x86_64")
    assert found is not None
    assert (found.cause + found.line).isprintable() and "/x" in found.cause
    assert len(printable("x" * 5000)) == 300
    assert why("OSError: [Errno 8] Exec format error: '{machine}{0}{x.y}'", machine="m").cause.startswith(
        "{machine}{0}"
    )  # type: ignore[union-attr]


def repetitions(pattern: str) -> list[tuple[int, int]]:
    """Return the largest counts of each repetition, with how deep in others it stands."""
    from re import _parser as parser  # type: ignore[attr-defined]

    def walk(tree: object, depth: int) -> list[tuple[int, int]]:
        found = []
        for kind, value in tree:  # type: ignore[attr-defined]
            name = str(kind)
            if "REPEAT" in name:
                most = int(value[1])
                found += [(most, depth), *walk(value[2], depth + (most > 1))]
            elif name == "SUBPATTERN":
                found += walk(value[3], depth)
            elif name == "BRANCH":
                for branch in value[1]:
                    found += walk(branch, depth)
        return found

    return walk(parser.parse(pattern), 0)


@pytest.mark.parametrize("failure", failure_table().failure, ids=lambda one: one.id)
def test_patterns_take_linear_time(failure: object) -> None:
    """Every repetition has an end, and none stands in another."""
    found = repetitions(failure.pattern)  # type: ignore[attr-defined]
    assert all(most <= 300 and depth == 0 for most, depth in found)


def test_a_log_made_to_take_long_does_not() -> None:
    """A quarter of a megabyte of what almost matches, rule by rule."""
    almost = [re.sub(r"['):$]*$", "", text.splitlines()[-1]) for text, *_ in KNOWN if text]
    seeds = [*almost, *(text[: len(text) // 2] for text in almost), "a:" * 9, ": lib" * 9, "RuntimeError: Connection "]
    for seed in seeds:
        for text in (
            f"{seed} " * ((256 << 10) // (len(seed) + 1)),
            f"{seed[:300]}\n" * ((256 << 10) // (len(seed) + 1)),
        ):
            began = time.process_time()
            why(text, None)
            assert time.process_time() - began < 5, seed


@given(st.text(max_size=400), st.sampled_from([text for text, *_ in KNOWN]))
def test_any_output_can_be_read(noise: str, text: str) -> None:
    """And what is shown of it is printable."""
    found = why(f"{noise}\n{text}{noise}", 1, **ALL)
    assert found is None or (found.cause + found.fix + found.line).isprintable()


def test_a_table_with_mistakes_is_refused(tmp_path: Path) -> None:
    """Naming the file and what is wrong."""
    path = tmp_path / "failures.toml"
    path.write_text(
        'followers = []\n[[failure]]\nid = "x"\nsource = "y"\nwhy = 1\ncase = []\n[packages]\n[modules]\n[xid]\n'
    )
    with pytest.raises(MlboxError, match=r"failures\.toml.*why"):
        read_failure_table(path)
