"""Signed metadata of archives: InRelease files checked against the host's keyrings, and the indexes they vouch for."""

import hashlib
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mlbox.errors import FetchError, LockError, SignatureError
from mlbox.files import write_atomic
from mlbox.http import HttpError, redact
from mlbox.lock.debian.distributions import DEBIAN, Distribution, distribution_of
from mlbox.lock.debian.sources import Mirror, stanzas

KEYRINGS = Path("/usr/share/keyrings")
TRUSTED = Path("/etc/apt/trusted.gpg.d")

_RELEASE_LIMIT = 8 << 20
_INDEX_LIMIT = 512 << 20
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(r"\w{3}, +(\d{1,2}) (\w{3}) (\d{4}) (\d{1,2}):(\d\d):(\d\d) (?:UTC|GMT|\+0000)")
_CHECKSUM = re.compile(r"([0-9a-f]{64})\s+(\d{1,12})\s+(\S+)")


class Http(Protocol):
    """What is asked of the web: one bounded request."""

    def get(self, url: str, *, limit: int) -> bytes:
        """Return the body at `url`; raises FetchError, also when it is larger than `limit`."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Where the keys that may sign a distribution's metadata lie."""

    keyrings: Path = KEYRINGS
    trusted: Path = TRUSTED


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified InRelease says, and the mirror it came from."""

    mirror: Mirror
    suite: str
    by_hash: bool
    files: dict[str, tuple[str, int]]
    """sha256 and size of each index, by its path below dists/<suite>/."""


def fetch_release(mirrors: Iterable[Mirror], suite: str, http: Http, *, keys: Keys, now: datetime | None) -> Release:
    """Return the verified Release of `suite` from the first mirror that has the distribution's own.

    `now` None skips Valid-Until. A source of somebody else that calls its suite alike is passed over; a file that says
    it is the distribution's and is not signed by one of its keys raises SignatureError at once.
    """
    distribution = distribution_of(suite)
    problem: Exception | None = None
    for mirror in mirrors:
        url = f"{mirror.root}/dists/{suite}/InRelease"
        try:
            raw = http.get(url, limit=_RELEASE_LIMIT)
        except FetchError as failure:
            problem = problem or failure
            continue
        if not _claims(raw, distribution):
            continue
        certificates = _certificates(mirror, keys, distribution)
        missing = not _keyrings(keys, distribution) and not (mirror.signed_by and certificates)
        signed = verify(raw, certificates, redact(url), distribution, no_keyring_in=keys.keyrings if missing else None)
        return parse_release(signed, mirror, suite, url=redact(url), now=now)
    if problem:
        raise problem
    raise LockError(
        f"none of the configured mirrors carries {distribution.name}'s suite {suite}",
        hint="check the apt configuration of this host, or set"
        f" {distribution.mirror} and {distribution.security_mirror}",
    )


def verify(
    raw: bytes,
    certificates: list[Any],
    what: str,
    distribution: Distribution = DEBIAN,
    *,
    no_keyring_in: Path | None = None,
) -> bytes:
    """Return exactly the bytes of `raw` that one of `certificates` signed; raises SignatureError naming `what`.

    `no_keyring_in` is where the keyring of `distribution` should lie, when it does not.
    """
    import pysequoia  # 9 MB, and only locking needs it

    if not certificates:
        raise _untrusted(what, "it has none", distribution, no_keyring_in)
    try:
        done = pysequoia.verify(bytes=raw, store=lambda _ids: certificates)
    except Exception as problem:  # pysequoia raises nothing more exact
        raise _untrusted(what, str(problem), distribution, no_keyring_in) from problem
    if done.bytes is None or not done.valid_sigs:
        raise _untrusted(what, "no valid signature", distribution, no_keyring_in)
    return done.bytes


def _untrusted(what: str, why: str, distribution: Distribution, no_keyring_in: Path | None) -> SignatureError:
    if no_keyring_in is not None:
        return SignatureError(
            f"{what}: there is no keyring of {distribution.name} on this host to check it with",
            hint=f"install the package {distribution.keyring},"
            f" or put its {distribution.id}-archive-keyring.gpg into {no_keyring_in}",
        )
    return SignatureError(
        f"{what}: not signed by a key that this host trusts for {distribution.name} ({why.strip().splitlines()[0]})",
        hint=f"the mirror may be damaged or dishonest, or the package {distribution.keyring} too old for this release",
    )


def parse_release(signed: bytes, mirror: Mirror, suite: str, *, url: str, now: datetime | None) -> Release:
    """Return what the verified bytes `signed` say; raises SignatureError when they are another suite's or outdated."""
    fields, distribution = next(stanzas(signed.decode("utf-8", "replace")), {}), distribution_of(suite)
    of = fields.get("origin", "?"), fields.get(distribution.suite_field, "?")
    if of != (distribution.name, suite):
        raise SignatureError(
            f"{url}: asked for {distribution.name} {suite}, but the signed file is of {' '.join(of)!r}"
        )
    if now is not None and (until := fields.get("valid-until")) and parse_date(until, url) < now:
        raise SignatureError(
            f"{url}: its signature was valid until {until}",
            hint="the mirror is out of date or somebody holds back updates; check the clock too."
            " For an archive that is old on purpose, set MLBOX_DEBIAN_VALID_UNTIL=ignore",
        )
    files = {path: (digest, int(size)) for digest, size, path in _CHECKSUM.findall(fields.get("sha256", ""))}
    return Release(mirror=mirror, suite=suite, by_hash=fields.get("acquire-by-hash") == "yes", files=files)


def parse_date(text: str, what: str) -> datetime:
    """Parse a date of a Release file, whatever the locale."""
    match = _DATE.fullmatch(text.strip())
    if match is None or match[2] not in _MONTHS:
        raise SignatureError(f"{what}: not a date: {text[:60]!r}")
    day, month, year, hour, minute, second = match.groups()
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError as problem:
        raise SignatureError(f"{what}: not a date: {text[:60]!r}") from problem


def fetch_index(release: Release, path: str, http: Http, cache: Path) -> Path:
    """Return the plain index `path` ('main/binary-amd64/Packages') as a file in `cache`.

    What is already in the cache costs no request. Raises SignatureError when the mirror serves
    anything but the bytes the Release names.
    """
    where = f"{distribution_of(release.suite).name} {release.suite} at {redact(release.mirror.root)}"
    if path not in release.files:
        raise LockError(f"{where} has no {path}", hint="this architecture or release may have left that mirror")
    digest, size = release.files[path]
    plain = cache / digest
    if not plain.is_file():
        write_atomic(plain, _download_index(release, path, http, size=size, digest=digest))
    return plain


def _download_index(release: Release, path: str, http: Http, *, size: int, digest: str) -> bytes:
    if size > _INDEX_LIMIT:
        raise LockError(f"{path} of {release.suite} is said to have {size} bytes; the limit is {_INDEX_LIMIT}")
    # gzip first: 3 MB more to download, but unpacked in a tenth of the time
    name = next(path + end for end in (".gz", ".xz", "") if path + end in release.files)
    packed = _get_file(release, name, http)
    data = _unpack(name, packed, size)
    if hashlib.sha256(data).hexdigest() != digest:
        raise _mismatch(release, path)
    return data


def _get_file(release: Release, name: str, http: Http) -> bytes:
    digest, size = release.files[name]
    folder = f"{release.mirror.root}/dists/{release.suite}"
    by_hash = f"{folder}/{name.rpartition('/')[0]}/by-hash/SHA256/{digest}"
    try:
        data = http.get(by_hash if release.by_hash else f"{folder}/{name}", limit=size)
    except FetchError as problem:
        absent = isinstance(problem, HttpError) and problem.status == 404
        if not release.by_hash or not (absent or folder.startswith("file:")):
            raise
        data = http.get(f"{folder}/{name}", limit=size)  # mirrors made by hand often leave by-hash out
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise _mismatch(release, name)
    return data


def _mismatch(release: Release, name: str) -> SignatureError:
    return SignatureError(
        f"{redact(release.mirror.root)}/dists/{release.suite}/{name} is not the file its signed Release names",
        hint="the mirror is being updated or is damaged: try again in some minutes, or use another mirror",
    )


def _unpack(name: str, packed: bytes, size: int) -> bytes:
    try:
        if name.endswith(".xz"):
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(packed, max_length=size + 1)
        if name.endswith(".gz"):
            return zlib.decompressobj(wbits=31).decompress(packed, max_length=size + 1)
    except (lzma.LZMAError, zlib.error) as problem:
        raise SignatureError(f"{name}: cannot be decompressed: {problem}") from problem
    return packed


def _claims(raw: bytes, distribution: Distribution) -> bool:
    return re.search(rf"^Origin: {distribution.name}\s*$".encode(), raw[:4096], re.MULTILINE) is not None


def _certificates(mirror: Mirror, keys: Keys, distribution: Distribution) -> list[Any]:
    import pysequoia

    found: list[Any] = []
    for data in _key_material(mirror, keys, distribution):
        try:
            found += pysequoia.Cert.split_bytes(data)
        except Exception:  # noqa: BLE001, S112 - pysequoia raises bare Exception; a broken keyring holds no keys
            continue
    return found


def _keyrings(keys: Keys, distribution: Distribution) -> list[Path]:
    pattern = f"{distribution.id}-archive-*"
    paths = [*sorted(keys.keyrings.glob(f"{pattern}.gpg")), *sorted(keys.keyrings.glob(f"{pattern}.pgp"))]
    return [path for path in paths if "removed" not in path.name]


def _key_material(mirror: Mirror, keys: Keys, distribution: Distribution) -> Iterator[bytes]:
    # The distribution's own keyring always counts. Keys of other sources count only where apt would use them:
    # a source with Signed-By has only those, one without has all that lie in trusted.gpg.d.
    paths = _keyrings(keys, distribution)
    for key in mirror.signed_by:
        if "BEGIN PGP" in key:
            yield key.encode()
        elif key.startswith("/"):
            paths.append(Path(key))
    if not mirror.signed_by:
        paths += sorted(keys.trusted.glob("*"))
    for path in paths:
        try:
            yield path.read_bytes()
        except OSError:
            continue
