"""Signed metadata of archives: InRelease files checked against the host's keyrings, and the indexes they vouch for."""

import hashlib
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
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

RELEASE_LIMIT = 8 << 20
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
    """sha256 and size of each index, by its path below `folder`."""
    date: datetime | None = None
    """When it was made; None when it does not say."""
    title: str = ""
    """What it is called in messages: 'Debian bookworm'."""

    @property
    def folder(self) -> str:
        """Where it lies."""
        return folder_of(self.mirror.root, self.suite)


def folder_of(root: str, suite: str) -> str:
    """Return the folder of a suite: in dists/, or, when its name ends with a slash, just below the root."""
    below = suite.removeprefix("./").strip("/") if suite.endswith("/") else f"dists/{suite}"
    return f"{root}/{below}".rstrip("/")


def fetch_release(
    mirrors: Iterable[Mirror], suite: str, http: Http, *, keys: Keys, now: datetime | None, cache: Path | None = None
) -> Release:
    """Return the verified Release of `suite` from the first mirror that has the distribution's own.

    `now` None skips Valid-Until. A source of somebody else that calls its suite alike is passed over; a file that says
    it is the distribution's and is not signed by one of its keys raises SignatureError at once. With a `cache`, a
    release that is older than the one seen last is not gone back to (see `newest`).
    """
    distribution = distribution_of(suite)
    problem: Exception | None = None
    for mirror in mirrors:
        url = f"{mirror.root}/dists/{suite}/InRelease"
        try:
            raw = http.get(url, limit=RELEASE_LIMIT)
        except FetchError as failure:
            problem = problem or failure
            continue
        if not _claims(raw, distribution):
            continue
        certificates = _certificates(mirror, keys, distribution)
        missing = not _keyrings(keys, distribution) and not (mirror.signed_by and certificates)
        signed = verify(raw, certificates, redact(url), distribution, no_keyring_in=keys.keyrings if missing else None)
        parse = partial(parse_release, mirror=mirror, suite=suite, url=redact(url), now=now)
        return newest(parse, signed, url, cache)
    if problem:
        raise problem
    raise LockError(
        f"none of the configured mirrors carries {distribution.name}'s suite {suite}",
        hint="check the apt configuration of this host, or set"
        f" {distribution.mirror} and {distribution.security_mirror}",
    )


def newest(parse: Callable[[bytes], Release], signed: bytes, url: str, cache: Path | None) -> Release:
    """Return what `parse` makes of the verified bytes `signed` of `url`, or of those seen there before if younger.

    So does apt: who answers in a mirror's place, or a mirror that is behind, cannot take updates back.
    """
    release = parse(signed)
    if cache is None or release.date is None:
        return release
    kept = cache / f"release-{hashlib.sha256(url.encode()).hexdigest()}"
    with suppress(OSError, SignatureError):
        before = parse(kept.read_bytes())
        if before.date and before.date > release.date:
            return before
    write_atomic(kept, signed)
    return release


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
    try:
        return signed_part(raw, certificates)
    except ValueError as problem:
        raise _untrusted(what, str(problem), distribution, no_keyring_in) from problem


def signed_part(raw: bytes, certificates: list[Any], signature: bytes | None = None) -> bytes:
    """Return exactly the bytes of `raw` that one of `certificates` signed, there or in the detached `signature`.

    Raises ValueError saying why there are none.
    """
    import pysequoia  # 9 MB, and only locking needs it

    if not certificates:
        raise ValueError("it has none")
    try:
        apart = pysequoia.Sig.from_bytes(signature) if signature is not None else None
        done = pysequoia.verify(bytes=raw, store=lambda _ids: certificates, signature=apart)
    except Exception as problem:  # pysequoia raises nothing more exact
        raise ValueError(str(problem).strip().splitlines()[0]) from problem
    data = raw if apart is not None else done.bytes
    if data is None or not done.valid_sigs:
        raise ValueError("no valid signature")
    return bytes(data)


def _untrusted(what: str, why: str, distribution: Distribution, no_keyring_in: Path | None) -> SignatureError:
    if no_keyring_in is not None:
        return SignatureError(
            f"{what}: there is no keyring of {distribution.name} on this host to check it with",
            hint=f"install the package {distribution.keyring},"
            f" or put its {distribution.id}-archive-keyring.gpg into {no_keyring_in}",
        )
    return SignatureError(
        f"{what}: not signed by a key that this host trusts for {distribution.name} ({why})",
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
    return release_of(fields, mirror, suite, f"{distribution.name} {suite}", url=url, now=now)


def release_of(
    fields: Mapping[str, str], mirror: Mirror, suite: str, title: str, *, url: str, now: datetime | None
) -> Release:
    """Return the Release that `fields` say; raises SignatureError when they were valid until before `now`."""
    if now is not None and (until := fields.get("valid-until")) and parse_date(until, url) < now:
        raise SignatureError(
            f"{url}: its signature was valid until {until}",
            hint="the mirror is out of date or somebody holds back updates; check the clock too."
            " For an archive that is old on purpose, set MLBOX_DEBIAN_VALID_UNTIL=ignore",
        )
    return Release(
        mirror=mirror,
        suite=suite,
        by_hash=fields.get("acquire-by-hash") == "yes",
        files={path: (digest, int(size)) for digest, size, path in _CHECKSUM.findall(fields.get("sha256", ""))},
        date=parse_date(date, url) if (date := fields.get("date")) else None,
        title=title,
    )


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
    # gzip first: 3 MB more to download, but unpacked in a tenth of the time
    name = next((path + end for end in (".gz", ".xz", "") if path + end in release.files), None)
    if name is None:
        where = f"{release.title} at {redact(release.mirror.root)}"
        raise LockError(f"{where} has no {path}", hint="this architecture or release may have left that mirror")
    # Small archives name no plain index; then the packed one's hash says as well what is in it.
    plain = cache / release.files.get(path, release.files[name])[0]
    if not plain.is_file():
        write_atomic(plain, _download_index(release, path, name, http))
    return plain


def _download_index(release: Release, path: str, name: str, http: Http) -> bytes:
    digest, size = release.files.get(path, ("", _INDEX_LIMIT))
    if (said := max(size, release.files[name][1])) > _INDEX_LIMIT:
        raise LockError(f"{path} of {release.suite} is said to have {said} bytes; the limit is {_INDEX_LIMIT}")
    data = _unpack(name, _get_file(release, name, http), size)
    if len(data) > size or digest not in ("", hashlib.sha256(data).hexdigest()):
        raise _mismatch(release, path)
    return data


def _get_file(release: Release, name: str, http: Http) -> bytes:
    digest, size = release.files[name]
    folder, above = release.folder, name.rpartition("/")[0]
    by_hash = "/".join(filter(None, (folder, above, "by-hash/SHA256", digest)))
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
        f"{redact(release.folder)}/{name} is not the file its signed Release names",
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
    return [one for data in _key_material(mirror, keys, distribution) for one in certificates_in(data)]


def certificates_in(data: bytes) -> list[Any]:
    """Return the public keys of a keyring, armored or not; a broken one holds none."""
    import pysequoia

    try:
        return list(pysequoia.Cert.split_bytes(data))
    except Exception:  # noqa: BLE001 - pysequoia raises bare Exception
        return []


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
