"""The files where Docker, podman and their kin keep logins, read and written as they do.

`auths` of ~/.docker/config.json and of containers' auth.json, keyed by registry or by a namespace in it; `credHelpers`
and `credsStore` name programs that keep them instead (mlbox.registry.helpers). What mlbox does not know stays.
"""

import fcntl
import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import RegistryError
from mlbox.files import write_atomic
from mlbox.oci.reference import DEFAULT_REGISTRY
from mlbox.registry import helpers
from mlbox.registry.credentials import Credentials

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_KEYS = (_HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io")
_LARGEST = 1 << 22
_MEND = "it holds logins, as Docker and podman write them: mend it, or move it away and log in again"


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    auth: str | None = ""
    username: str | None = ""
    password: str | None = ""
    identitytoken: str | None = ""
    registrytoken: str | None = ""


class LoginFile(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the files says about logins."""

    path: Path
    auths: dict[str, _Entry | None] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    auths: dict[str, _Entry | None] | None = None
    creds_store: str | None = None
    cred_helpers: dict[str, str] | None = None


def login_paths() -> tuple[Path, ...]:
    """Return the files in which logins are looked for, in order; the first of them is written."""
    home = Path.home()
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}")
    containers = runtime / ("containers/auth.json" if os.environ.get("XDG_RUNTIME_DIR") else "auth.json")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    asked = os.environ.get("REGISTRY_AUTH_FILE")
    return (*((Path(asked),) if asked else ()), docker, containers, config)


def keys_of(registry: str, repository: str = "") -> tuple[str, ...]:
    """Return the keys under which a login for `repository` may stand, the most precise first."""
    names = repository.split("/") if repository else []
    hosts = _HUB_KEYS if registry == DEFAULT_REGISTRY else (registry, f"https://{registry}", f"http://{registry}")
    paths = ["/".join(names[:count]) for count in range(len(names), 0, -1)]
    spelled = tuple(f"{registry}/{path}" for path in paths)
    old = () if registry == DEFAULT_REGISTRY else tuple(f"https://{registry}/{end}" for end in ("v1/", "v2/", ""))
    return (*spelled, *hosts, *old)


def logins_of(registry: str, paths: tuple[Path, ...] | None = None) -> Callable[[str], Credentials | None]:
    """Return what tells who one is to a repository of `registry`; files are read, and programs asked, once."""
    from functools import lru_cache

    places = login_paths() if paths is None else paths

    @lru_cache(maxsize=1)
    def files() -> tuple[LoginFile, ...]:
        return tuple(found for path in places if (found := load(path)) is not None)

    @lru_cache(maxsize=256)
    def look_up(repository: str) -> Credentials | None:
        keys = keys_of(registry, repository)
        return next((found for file in files() if (found := _find(file, registry, keys)) is not None), None)

    return look_up


def load(path: Path) -> LoginFile | None:
    """Return what the file at `path` says, None when there is none; raises RegistryError when it cannot be read."""
    data = _read(path)
    if not data.strip():
        return None
    document = decode_json(data, _Document, what=str(path), error=RegistryError, hint=_MEND)
    return LoginFile(
        path=path,
        auths=document.auths or {},
        creds_store=document.creds_store or "",
        cred_helpers=document.cred_helpers or {},
    )


def save_login(registry: str, credentials: Credentials, path: Path, namespace: str = "") -> str:
    """Keep a login where the file at `path` says: in the program that it names for the registry, else in the file.

    One for a `namespace` only stands in the file: programs know registries.

    Returns where it is kept, in words. Other keys of the file stay; it is written atomically, readable by its owner.
    """
    key = f"{registry}/{namespace}" if namespace else _HUB_KEY if registry == DEFAULT_REGISTRY else registry
    helper = "" if namespace else _helper(load(path) or LoginFile(path=path), registry)
    if helper:
        helpers.store(helper, key, credentials)
    with _changing(path) as document:
        auths = document.setdefault("auths", {})
        pair = f"{credentials.username}:{credentials.password}".encode()
        auths[key] = {} if helper else {"auth": b64encode(pair).decode()}
    return f"docker-credential-{helper}" if helper else str(path)


def erase_login(registry: str, paths: tuple[Path, ...], namespace: str = "") -> tuple[str, ...]:
    """Forget the login to `registry` (or one namespace) in all files and their programs; return where it was."""
    gone: list[str] = []
    for path in paths:
        file = load(path)
        if file is None:
            continue
        helper = "" if namespace else _helper(file, registry)
        wanted = (f"{registry}/{namespace}",) if namespace else keys_of(registry)
        keys = [key for key in wanted if key in file.auths]
        if helper and (found := [key for key in _helper_keys(registry) if helpers.get(helper, key)]):
            for key in found:
                helpers.erase(helper, key)
            gone.append(f"docker-credential-{helper}")
        if keys:
            with _changing(path) as document:
                for key in keys:
                    del document["auths"][key]
            if not helper:
                gone.append(str(path))
    return tuple(gone)


def _find(file: LoginFile, registry: str, keys: tuple[str, ...]) -> Credentials | None:
    for key in keys:
        if (found := _of_entry(file, key)) is not None and key.startswith(f"{registry}/"):
            return found  # a namespace's own login goes before whatever the whole registry has
    for key in keys:
        if (helper := file.cred_helpers.get(key)) and (found := helpers.get(helper, key)):
            return found
    if file.creds_store:
        for key in _helper_keys(registry):
            if found := helpers.get(file.creds_store, key, needed=False):
                return found
    return next((found for key in keys if (found := _of_entry(file, key)) is not None), None)


def _helper(file: LoginFile, registry: str) -> str:
    named = (file.cred_helpers.get(key) for key in keys_of(registry))
    return next((helper for helper in named if helper), file.creds_store)


def _helper_keys(registry: str) -> tuple[str, ...]:
    return (_HUB_KEY,) if registry == DEFAULT_REGISTRY else (registry, f"https://{registry}")


def _of_entry(file: LoginFile, key: str) -> Credentials | None:
    """Return the login that stands in the file itself, None when there is none."""
    entry = file.auths.get(key)
    if entry is None:
        return None
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        try:
            username, _, password = b64decode(entry.auth, validate=True).decode().partition(":")
        except (Base64Error, UnicodeDecodeError, ValueError):
            raise RegistryError(
                f"{file.path}: the login for {key} is damaged", hint=f"'mlbox login {key}' writes it again"
            ) from None
        password = password.rstrip("\x00")
    found = Credentials(
        username=username,
        password=password,
        identity_token=entry.identitytoken or "",
        registry_token=entry.registrytoken or "",
    )
    return found if found.secrets else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as problem:
        raise RegistryError(
            f"{path}: {problem.strerror}", hint="it holds logins: make it readable for you"
        ) from problem
    if len(data) > _LARGEST:
        raise RegistryError(
            f"{path}: more than {_LARGEST} bytes, which no file of logins has",
            hint="name another in REGISTRY_AUTH_FILE",
        )
    return data


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold the folder itself: a file of our own would stay behind in the user's."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the document at `path` and write it back; a link to it stays one."""
    real = path.resolve()
    real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked_folder(real.parent):
        data = _read(real)
        document: dict[str, Any] = {}
        if data.strip():
            document = decode_json(data, dict[str, Any], what=str(path), error=RegistryError, hint=_MEND)
        yield document
        text = msgspec.json.format(msgspec.json.encode(document), indent=8)
        write_atomic(real, text + b"\n", mode=0o600)
