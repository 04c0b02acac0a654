"""Which images may be pulled and run on this machine.

A policy is one or two files, the machine's and the user's; each of them must allow an image, so that no file can
loosen another. Without a file everything is allowed, and finding that out costs one stat each.

    default = "deny"                    # for registries that no rule names; "allow" when left out
    local = "allow"                     # images built or loaded here

    [[rule]]
    prefix = "registry.example.com/team"
    action = "signed"                   # or "allow", "deny"
    keys = ["team.pub"]                 # beside this file, or absolute; a signature of one of them is enough

The longest prefix that fits decides; it ends where a part of the name ends.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import TrustError
from mlbox.oci.digest import Digest
from mlbox.trust.policy_files import SYSTEM, files_of

if TYPE_CHECKING:
    from mlbox.trust.keys import PublicKey
    from mlbox.trust.signature import Signature

_LIMIT = 1 << 20
_MEND = "a policy that cannot be understood allows nothing: mend the file"


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for the repositories below `prefix`."""

    prefix: str
    action: Literal["allow", "deny", "signed"]
    keys: tuple[str, ...] = ()

    def covers(self, repository: str) -> bool:
        """Whether the rule speaks of `repository` (with its registry)."""
        return repository == self.prefix or repository.startswith(self.prefix + "/")


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy.toml."""

    default: Literal["allow", "deny"] = "allow"
    local: Literal["allow", "deny"] = "allow"
    rule: tuple[Rule, ...] = ()


class Claim(NamedTuple):
    """A manifest that an image has, and how to get the signatures of it: called only when a rule asks for one."""

    digest: Digest
    signatures: "Callable[[], Iterable[Signature]]"


class Policy(NamedTuple):
    """All the files that have a say."""

    files: tuple[tuple[Path, PolicyFile], ...] = ()

    def check(self, repository: str, claims: Iterable[Claim]) -> None:
        """Return when an image that came from `repository` (with its registry) may be used; else raise TrustError.

        `claims` are the manifests that stand for exactly this image: a signature of one of them is one of it.
        """
        manifests = tuple(claims) if self.files else ()
        for path, file in self.files:
            _check(path, file, _plain(repository), manifests)

    def check_local(self, claimed: Iterable[str], claims: Iterable[Claim]) -> None:
        """Return when an image that was built or loaded here may be used; else raise TrustError.

        `claimed` are the repositories that it says it is from. Anybody can say so, hence one counts only where the
        policy asks for a signature of images from there, and one of `claims` has it.
        """
        origins, manifests = tuple(map(_plain, claimed)), tuple(claims)
        for path, file in self.files:
            if file.local == "deny" and not any(_is_vouched_for(path, file, origin, manifests) for origin in origins):
                raise TrustError(
                    f"the policy {path} allows no image that was built or loaded here",
                    hint='pull a signed one, or set local = "allow" there',
                )


def load(environ: Mapping[str, str] | None = None, system: Path = SYSTEM) -> Policy:
    """Read the policy of this machine, then that of the user (MLBOX_POLICY, else in the configuration folder)."""
    environ = os.environ if environ is None else environ
    machines, users = files_of(environ, system)
    found = ((machines, _read(machines)), (users, _read(users, must_exist=bool(environ.get("MLBOX_POLICY")))))
    return Policy(tuple((path, parse(data, path)) for path, data in found if data is not None))


def parse(data: bytes, path: Path) -> PolicyFile:
    """Decode a policy; anything unknown in it is an error, for a slip of the pen must not open a door."""
    table = load_toml(data, what=str(path), error=_Unreadable)
    try:
        file = msgspec.convert(table, PolicyFile)
    except msgspec.ValidationError as problem:
        raise _Unreadable(f"{path}: {problem}") from problem
    rules = tuple(_rule(rule, path) for rule in file.rule)
    prefixes = [rule.prefix for rule in rules]
    if twice := sorted({prefix for prefix in prefixes if prefixes.count(prefix) > 1}):
        raise _Unreadable(f"{path}: two rules for {twice[0]}")
    return msgspec.structs.replace(file, rule=rules)


def _rule(rule: Rule, path: Path) -> Rule:
    from mlbox.errors import UsageError
    from mlbox.oci.reference import parse_reference

    prefix = rule.prefix.removesuffix("/")
    what = f"{path}: rule for {rule.prefix!r}"
    try:
        # A prefix alone is no image name; with any repository below it, it must be one.
        parsed = parse_reference(f"{prefix}/any/any:any")
    except UsageError:
        raise _Unreadable(f"{what}: not the beginning of a name like registry.example.com/team") from None
    if f"{parsed.registry}/{parsed.repository}" != f"{prefix}/any/any":
        raise _Unreadable(f"{what}: the name must begin with a registry, like docker.io/library")
    if rule.action == "signed" and not rule.keys:
        raise _Unreadable(f"{what}: it wants signatures and names no keys")
    if rule.action != "signed" and rule.keys:
        raise _Unreadable(f"{what}: keys are for the action 'signed'")
    return msgspec.structs.replace(rule, prefix=_plain(prefix))


def _check(path: Path, file: PolicyFile, repository: str, claims: tuple[Claim, ...]) -> None:
    rule = _rule_for(file, repository)
    action = rule.action if rule else file.default
    name = f"its rule for {rule.prefix}" if rule else "its default"
    if action == "deny":
        raise TrustError(
            f"the policy {path} does not allow images of {repository}: {name} denies them",
            hint=f"a rule there with a longer prefix (up to {repository}) can allow them",
        )
    if rule is not None and action == "signed":
        _check_signed(path, rule, repository, claims)


def _rule_for(file: PolicyFile, repository: str) -> Rule | None:
    covering = (rule for rule in file.rule if rule.covers(repository))
    return max(covering, key=lambda rule: len(rule.prefix), default=None)


def _is_vouched_for(path: Path, file: PolicyFile, repository: str, claims: tuple[Claim, ...]) -> bool:
    rule = _rule_for(file, repository)
    return rule is not None and rule.action == "signed" and _looked_at(path, rule, claims)[0]


def _looked_at(path: Path, rule: Rule, claims: tuple[Claim, ...]) -> tuple[bool, int]:
    """Return whether a key of the rule signed one of the manifests, and how many signatures were looked at."""
    from mlbox.trust.signature import signer

    keys = _keys(path, rule)
    seen = 0
    for claim in claims:
        for signature in claim.signatures():
            seen += 1
            if signer(signature, claim.digest, keys):
                return True, seen
    return False, seen


def _keys(path: Path, rule: Rule) -> "list[PublicKey]":
    from mlbox.trust.keys import load_public

    try:
        return [load_public(path.parent / key) for key in rule.keys]
    except TrustError as problem:
        problem.hint = f"the rule for {rule.prefix} in {path} names it: put the public key there, or name another"
        raise


def _check_signed(path: Path, rule: Rule, repository: str, claims: tuple[Claim, ...]) -> None:
    found, seen = _looked_at(path, rule, claims)
    if found:
        return
    what = f"none of its {seen} signatures is by one of them" if seen else "it has no signature"
    digest = claims[0].digest if claims else "unknown"
    raise TrustError(
        f"the policy {path} wants images of {rule.prefix} signed with {' or '.join(rule.keys)}; "
        f"for {repository}@{digest} {what}",
        hint=f"have it signed ('mlbox sign {repository}@{digest} --key FILE', with the key of {rule.keys[0]});"
        " 'mlbox pull' brings signatures that were made since",
    )


def _plain(repository: str) -> str:
    """Return the one spelling of a repository, or a rule could be walked around with another one."""
    registry, slash, path = repository.partition("/")
    registry = registry.lower()
    host, _, port = registry.rpartition(":")
    if port.isdecimal():  # '0443' is the same door
        registry = f"{host}:{int(port)}".removesuffix(":443")
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = "docker.io"
    return registry + slash + path


def _read(path: Path, *, must_exist: bool = False) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        if must_exist or path.is_symlink():
            raise _Unreadable(f"there is no policy {path}, and something says that there is one") from None
        return None
    except OSError as problem:
        raise _Unreadable(f"cannot read the policy {path}: {problem.strerror}") from problem
    if len(data) > _LIMIT:
        raise _Unreadable(f"{path}: larger than {_LIMIT} bytes")
    return data


class _Unreadable(TrustError):
    """A policy that says nothing certain."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or _MEND)
