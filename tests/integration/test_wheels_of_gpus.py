"""What gpu/frameworks.toml says, held against wheels of the index that is configured, read by ranges."""

import os

import pytest
from benchmarks.wheel_facts import facts, wheel_of
from conftest import missing

from mlbox.errors import FetchError
from mlbox.gpu.frameworks import framework_of
from mlbox.http import Http

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "version", "member"),
    [
        ("torch", "2.9.1", ""),
        ("torch", "2.15.0", ""),
        ("onnxruntime-gpu", "1.22.0", ""),
        ("cupy-cuda12x", "14.2.0", "cupy/cuda/cub.*.so"),
        ("torch", "2.15.0", "torch/lib/libtorch_cuda.so"),
    ],
    ids=("torch-2.9", "torch-2.15", "onnxruntime", "cupy-code", "torch-2.15-code"),
)
def test_rows_are_what_wheels_say(name: str, version: str, member: str) -> None:
    """Megabytes are fetched of wheels of hundreds; the largest libraries only where MLBOX_WHEELS=1 asks for them."""
    if "libtorch" in member and os.environ.get("MLBOX_WHEELS") != "1":
        pytest.skip("400 MB: MLBOX_WHEELS=1 reads them")
    http, row = Http(), framework_of(name, version)
    assert row is not None
    try:
        found = facts(http, wheel_of(http, name, version), (member,) if member else ())
    except FetchError as problem:
        missing(f"no index: {problem.message}")
        return
    assert member or found["fetched"] < 8 << 20
    assert found["says"][-1:] in ([], [row.cuda])
    wheels = {line.partition("=")[0].partition("<")[0].partition("~")[0] for line in found["requires"]}
    if row.loads:
        assert any("cu12" in one for one in wheels) or "cuda-toolkit" in str(wheels)
    for library in found["libraries"].values():
        assert library["code"] == row.code
