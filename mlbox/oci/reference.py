"""Image names: registry/repository:tag@digest (distribution-spec grammar, Docker's defaults)."""

import re

import msgspec

from mlbox.errors import UsageError
from mlbox.oci.digest import Digest, is_digest

DEFAULT_REGISTRY = "docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")

_LOGIN = re.compile(r"[^/@]*:[^/@]*@(?!sha256:)")
"""A user and a password, which must not be shown."""
_MOST_PORT = 65535
_SHOWN = 1000


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed image name; at least one of `tag` and `digest` is set."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        """Return the whole name, which parses back to an equal value."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def name(self) -> str:
        """The registry and the repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The shortest name that means the same: without docker.io/ and library/ where they go without saying."""
        short = str(self).removeprefix(DEFAULT_REGISTRY + "/")
        for name in (short.removeprefix("library/"), short):
            if _means(name, self):
                return name
        return str(self)


def parse_reference(text: str) -> Reference:
    """Return the image name `text` means; raises UsageError when it is none."""
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text)
    head, slash, tail = rest.partition("/")
    if slash and (("." in head) or (":" in head) or head == "localhost"):
        registry, path = head, tail
    else:
        registry, path = DEFAULT_REGISTRY, rest
    repository, colon, tag = path.partition(":")
    if rest.startswith("sha256:"):  # would be a name that nobody can say: everywhere this means a digest
        raise _invalid(text)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = "library/" + repository
    if not (_REGISTRY.fullmatch(registry) and _REPOSITORY.fullmatch(repository) and len(repository) < 256):
        raise _invalid(text)
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text)
    if (port := registry.rpartition(":")[2]).isdecimal() and int(port) > _MOST_PORT:
        raise _invalid(text)
    return Reference(
        registry=registry,
        repository=repository,
        tag=tag or ("" if at else "latest"),
        digest=Digest(digest) if at else None,
    )


def _means(text: str, reference: Reference) -> bool:
    try:
        return parse_reference(text) == reference
    except UsageError:
        return False


def _invalid(text: str) -> UsageError:
    text = text[:_SHOWN]  # the expression takes the square of its length
    hint = "names look like team/bert:1: lower-case letters, digits, '.', '_', '-', '/'"
    if "://" in text or _LOGIN.search(text):
        hint = "names look like registry.example:5000/team/bert:1, without https:// and password ('mlbox login')"
    return UsageError(f"not an image name: {_LOGIN.sub('…@', text)[:200]!r}", hint=hint)
