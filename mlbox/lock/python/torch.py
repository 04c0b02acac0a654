"""Indexes with the builds of PyTorch for one accelerator, in place of the one that uv knows by itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape

from mlbox.errors import FetchError
from mlbox.http import Http, redact
from mlbox.lock.python.model import Index, Page
from mlbox.lock.python.pages import anchors_of_project

FAMILY = (
    *("torch", "torch-model-archiver", "torch-tb-profiler", "torcharrow", "torchaudio", "torchcsprng", "torchdata"),
    *("torchdistx", "torchserve", "torchtext", "torchvision"),
    *("triton", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu"),
)
"""What uv takes from the index of torch builds, and from no other; all else there is a copy of what others have."""
_ASKED_AT_ONCE = 5
_KEPT = ("data-requires-python", "data-yanked", "data-core-metadata", "data-dist-info-metadata")


def pages_of(index: Index, accelerator: str, http: Http) -> tuple[Page, ...]:
    """Return the pages of those projects that have builds for an accelerator; FetchError when it has none of torch."""
    try:
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            pages = [page for page in pool.map(lambda name: page_of(index, name, http), FAMILY) if page.html]
    except FetchError as problem:
        raise FetchError(
            f"the index of torch builds for accelerator {accelerator!r} cannot be read: {problem.message}",
            hint=problem.hint or _HINT,
        ) from problem
    if not any(page.name == "torch" for page in pages):
        raise FetchError(
            f"the index of torch builds for accelerator {accelerator!r} has no torch: {redact(index.url)}", hint=_HINT
        )
    return tuple(pages)


_HINT = "correct accelerator-indexes in [tool.mlbox], or MLBOX_TORCH_INDEX, below which there is a folder for each"


def page_of(index: Index, name: str, http: Http) -> Page:
    """Return what an index has of one project; an empty page when it does not know it."""
    return Page(name=name, html="".join(_lines(index, name, http)))


def _lines(index: Index, name: str, http: Http) -> Iterator[str]:
    for file, attributes in anchors_of_project(http, index.url, name):
        kept = "".join(f' {key}="{escape(attributes[key] or "")}"' for key in _KEPT if key in attributes)
        fragment = f"#sha256={file.sha256}" if file.sha256 else ""
        yield f'<a href="{escape(file.url + fragment)}"{kept}>{escape(file.filename)}</a>\n'
