"""What a read-only registry answers to a request, as values: the distribution-spec without HTTP."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, quote

import msgspec

from mlbox.codec import canonical_json
from mlbox.errors import MlboxError
from mlbox.oci.digest import Digest, is_digest
from mlbox.oci.image import INDEX
from mlbox.registry import served
from mlbox.store.store import Store

PAGE = 1000
"""Names in one answer, when the client does not ask for fewer."""
_ROUTE = re.compile(r"/v2/(?P<repository>.+)/(?P<what>manifests|blobs|referrers|tags)/(?P<reference>[^/]+)")
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the answer; `path` is as it was sent, nothing in it decoded."""

    method: str
    path: str
    query: str = ""
    range: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A status, headers, and a body: `body`, or `length` bytes of `part` from `start` on."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    part: served.Part | None = None
    start: int = 0
    length: int = 0


def answer(store: Store, request: Request) -> Answer:
    """Return the answer to a request that may be made; nothing raised here is the client's business but the status."""
    if request.method not in ("GET", "HEAD"):
        return refusal(405, "UNSUPPORTED", "this registry can only be read", {"Allow": "GET, HEAD"})
    try:
        return _route(store, request)
    except served.UnknownError as problem:
        return refusal(404, problem.code, problem.message)
    except (MlboxError, OSError):
        return broken()


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an error as the distribution-spec words it."""
    errors = {"errors": [{"code": code, "message": message[:300]}]}
    return _json(errors, status=status, headers=headers or {})


def broken() -> Answer:
    """Return the error for a damaged store: what is wrong is for its owner ('mlbox fsck'), not for whoever asks."""
    return refusal(500, "UNKNOWN", "the store could not be read")


def _route(store: Store, request: Request) -> Answer:
    if request.path in ("/v2/", "/v2"):
        return _json({})
    if request.path == "/v2/_catalog":
        return _page("repositories", served.repositories(store), request, {})
    match = _ROUTE.fullmatch(request.path)
    if match is None:
        return refusal(404, "NAME_UNKNOWN", "nothing is here")
    repository, what, reference = match["repository"], match["what"], match["reference"]
    if what == "tags" and reference == "list":
        return _page("tags", served.tags(store, repository), request, {"name": repository})
    if what == "manifests":
        return _document(served.manifest(store, repository, reference))
    if not is_digest(reference):
        return refusal(400, "DIGEST_INVALID", "a digest is 'sha256:' and 64 hex digits")
    if what == "blobs":
        return _part(served.blob(store, repository, Digest(reference)), request.range)
    if what == "referrers":
        return _referrers(store, repository, Digest(reference), request.query)
    return refusal(404, "NAME_UNKNOWN", "nothing is here")


def _json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=canonical_json(value)
    )


def _page(key: str, names: tuple[str, ...], request: Request, more: Mapping[str, str]) -> Answer:
    """Answer with the names after `last`, at most `n`, and where the next ones are."""
    query = _query(request.query)
    last, asked = query.get("last", ""), query.get("n", "")
    size = min(int(asked), PAGE) if asked.isdecimal() and len(asked) < 10 else PAGE
    left = [name for name in names if name > last]
    page = left[:size]
    headers = {}
    if page and len(page) < len(left):
        headers["Link"] = f'<{request.path}?n={size}&last={quote(page[-1], safe="")}>; rel="next"'
    return _json({**more, key: page}, headers=headers)


def _document(found: served.Document) -> Answer:
    headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
    return Answer(headers=headers, body=found.data)


def _part(found: served.Part, asked: str) -> Answer:
    """Answer with a blob or the part of it that a Range header asks for; a Range that is none is ignored."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": found.digest,
        "Accept-Ranges": "bytes",
    }
    match = _RANGE.fullmatch(asked)
    if match is None or not (match["first"] or match["last"]):
        return Answer(headers=headers, part=found, length=found.size)
    if match["first"]:
        start, end = int(match["first"]), min(int(match["last"] or found.size), found.size - 1)
    else:
        start, end = max(0, found.size - int(match["last"])), found.size - 1
    if match["first"] and match["last"] and int(match["last"]) < start:
        return Answer(headers=headers, part=found, length=found.size)
    if start > end:
        return refusal(416, "RANGE_INVALID", "the blob ends before", {"Content-Range": f"bytes */{found.size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{found.size}"
    return Answer(status=206, headers=headers, part=found, start=start, length=end - start + 1)


def _referrers(store: Store, repository: str, subject: Digest, query: str) -> Answer:
    wanted = _query(query).get("artifactType", "")
    headers = {"Content-Type": INDEX}
    if wanted:
        headers["OCI-Filters-Applied"] = "artifactType"
    return Answer(headers=headers, body=served.referrers(store, repository, subject, wanted))


def _query(text: str) -> dict[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(text, max_num_fields=20).items()}
    except ValueError:
        return {}
