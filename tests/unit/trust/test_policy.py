"""Policies: what they allow, and that no slip of the pen opens a door."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import TrustError
from mlbox.oci.digest import Digest
from mlbox.trust.keys import PrivateKey
from mlbox.trust.policy import Claim, Policy, load, parse
from mlbox.trust.policy_files import is_any
from mlbox.trust.signature import Signature, sign

ONE = Digest("sha256:" + "ab" * 32)
OTHER = Digest("sha256:" + "cd" * 32)
PATH = Path("/somewhere/policy.toml")
TEAM = "registry.example/team/bert"


def of(text: str) -> Policy:
    return Policy(((PATH, parse(text.encode(), PATH)),))


def unasked() -> Iterable[Signature]:
    raise AssertionError("no rule asks for signatures")


RULES = """
default = "{default}"
local = "{local}"
[[rule]]
prefix = "docker.io/library"
action = "allow"
[[rule]]
prefix = "registry.example"
action = "deny"
[[rule]]
prefix = "registry.example/team/"
action = "allow"
"""


@pytest.mark.parametrize(
    ("repository", "default", "allowed"),
    [
        ("docker.io/library/python", "deny", True),
        ("docker.io/library2/python", "deny", False),
        ("docker.io/someone/python", "deny", False),
        ("docker.io/someone/python", "allow", True),
        ("registry.example/other/x", "allow", False),
        ("registry.example/team/bert", "allow", True),
        ("registry.example/team", "allow", True),
        ("registry.example/teams/bert", "allow", False),
        ("registry.example:5000/team/bert", "deny", False),
        ("REGISTRY.example/other/x", "allow", False),
        ("registry.example:443/other/x", "allow", False),
        ("index.docker.io/library/python", "deny", True),
        ("Docker.IO:0443/library/python", "deny", True),
    ],
)
def test_the_longest_prefix_decides(repository: str, default: str, allowed: bool) -> None:
    """Prefixes end where a part of the name ends, and another spelling of a registry walks around none."""
    policy = of(RULES.format(default=default, local="allow"))
    if allowed:
        policy.check(repository, [Claim(ONE, unasked)])
    else:
        with pytest.raises(TrustError, match="does not allow") as caught:
            policy.check(repository, [Claim(ONE, unasked)])
        assert str(PATH) in caught.value.message


def test_local_images_have_a_rule_of_their_own() -> None:
    """Images that came from no registry can be kept from running."""
    with pytest.raises(TrustError, match="built or loaded here"):
        of('local = "deny"').check_local([TEAM], [])
    of('local = "deny"').check(TEAM, [])
    of('default = "deny"').check_local([TEAM], [])


def test_what_an_image_claims_counts_only_when_it_is_signed(signed: Policy, key: PrivateKey, tmp_path: Path) -> None:
    """A file may say that it is from anywhere; and a user's rule vouches for nothing that the machine denies."""
    path, file = signed.files[0]
    strict = Policy(((path, msgspec.structs.replace(file, local="deny")),))
    strict.check_local([TEAM], [Claim(ONE, lambda: sign(ONE, TEAM, key))])
    machines = of('local = "deny"\n[[rule]]\nprefix = "registry.example"\naction = "allow"')
    for policy in (strict, machines, Policy((*machines.files, *strict.files))):
        with pytest.raises(TrustError, match="built or loaded here"):
            policy.check_local([TEAM, "docker.io/library/python"], [Claim(ONE, tuple), Claim(OTHER, tuple)])
    with pytest.raises(TrustError, match="built or loaded here"):
        Policy((*machines.files, *strict.files)).check_local([TEAM], [Claim(ONE, lambda: sign(ONE, TEAM, key))])
    (tmp_path / "team.pub").unlink()
    with pytest.raises(TrustError, match="there is no key"):
        strict.check_local([TEAM], [])


@pytest.fixture
def signed(tmp_path: Path, key_files: tuple[Path, Path]) -> Policy:
    """A policy in a folder with a key, which wants the team's images signed with it."""
    (tmp_path / "team.pub").write_bytes(key_files[1].read_bytes())
    path = tmp_path / "policy.toml"
    path.write_text('[[rule]]\nprefix = "registry.example/team"\naction = "signed"\nkeys = ["team.pub"]\n')
    return load({"MLBOX_POLICY": str(path)}, tmp_path / "no-system-policy")


def test_a_signature_of_a_key_of_the_rule_is_enough(signed: Policy, key: PrivateKey) -> None:
    """One manifest of several that is signed will do; keys lie beside the policy."""
    signed.check(TEAM, [Claim(OTHER, lambda: ()), Claim(ONE, lambda: sign(ONE, TEAM, key))])
    signed.check("docker.io/library/python", [Claim(ONE, unasked)])


def test_unsigned_and_wrongly_signed_images_are_refused(signed: Policy, key: PrivateKey, stranger: PrivateKey) -> None:
    """Unsigned, signed by a stranger, or with another image's signature: the error names rule, file and way out."""
    for found, said in (
        ((), "it has no signature"),
        (sign(ONE, TEAM, stranger), "none of its 2 signatures"),
        (sign(OTHER, TEAM, key), "none of its 2 signatures"),
    ):
        with pytest.raises(TrustError, match=said) as caught:
            signed.check(TEAM, [Claim(ONE, lambda found=found: found)])  # type: ignore[misc]
        assert str(signed.files[0][0]) in caught.value.message
        assert "registry.example/team" in caught.value.message
        assert "team.pub" in caught.value.message
        assert f"mlbox sign {TEAM}@{ONE}" in str(caught.value.hint)


def test_signatures_are_asked_for_one_after_the_other(signed: Policy, key: PrivateKey) -> None:
    """What is not needed is not fetched."""
    signed.check(TEAM, [Claim(ONE, lambda: sign(ONE, TEAM, key)), Claim(OTHER, unasked)])


def test_a_missing_key_refuses(signed: Policy, key: PrivateKey) -> None:
    """A rule whose key is gone lets nothing through."""
    (signed.files[0][0].parent / "team.pub").unlink()
    with pytest.raises(TrustError, match="there is no key") as caught:
        signed.check(TEAM, [Claim(ONE, lambda: sign(ONE, TEAM, key))])
    assert f"in {signed.files[0][0]} names it" in str(caught.value.hint)


def test_the_users_policy_cannot_loosen_the_machines(tmp_path: Path) -> None:
    """Both files must allow an image; MLBOX_POLICY stands for the user's file only."""
    (tmp_path / "system.toml").write_text('default = "deny"')
    (tmp_path / "user.toml").write_text('default = "allow"\nlocal = "deny"')
    both = load({"MLBOX_POLICY": str(tmp_path / "user.toml")}, tmp_path / "system.toml")
    with pytest.raises(TrustError, match=r"system\.toml"):
        both.check(TEAM, [])
    with pytest.raises(TrustError, match=r"user\.toml"):
        both.check_local((), [])


def test_no_file_allows_everything(tmp_path: Path) -> None:
    """Without a policy there is nothing to read and nothing to ask."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert not is_any(environ, tmp_path / "none")
    policy = load(environ, tmp_path / "none")
    assert policy == Policy()
    policy.check(TEAM, [Claim(ONE, unasked)])


def test_the_users_file_lies_in_the_configuration_folder(tmp_path: Path) -> None:
    """XDG_CONFIG_HOME, else .config of the home folder."""
    for environ in ({"XDG_CONFIG_HOME": str(tmp_path / ".config")}, {"HOME": str(tmp_path)}):
        assert not is_any(environ, tmp_path / "none")
    (tmp_path / ".config/mlbox").mkdir(parents=True)
    (tmp_path / ".config/mlbox/policy.toml").write_text('default = "deny"')
    for environ in ({"XDG_CONFIG_HOME": str(tmp_path / ".config")}, {"HOME": str(tmp_path)}):
        assert is_any(environ, tmp_path / "none")
        with pytest.raises(TrustError):
            load(environ, tmp_path / "none").check(TEAM, [])


def test_a_policy_that_cannot_be_read_refuses(tmp_path: Path) -> None:
    """A folder in its place, a dangling link, a name that leads nowhere, a huge file."""
    none = tmp_path / "none"
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "huge").write_bytes(b"#" * (2 << 20))
    for name in ("folder", "link", "huge", "missing"):
        environ = {"MLBOX_POLICY": str(tmp_path / name)}
        assert is_any(environ, none)
        with pytest.raises(TrustError):
            load(environ, none)
    for name in ("folder", "link", "huge"):
        assert is_any({"HOME": str(none)}, tmp_path / name)
        with pytest.raises(TrustError):
            load({"HOME": str(none)}, tmp_path / name)


def test_a_place_that_cannot_be_looked_at_counts_as_a_policy(tmp_path: Path) -> None:
    """Whether there is a file cannot be said, so it is not said that there is none."""
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / "loop" / "policy.toml"
    assert is_any({"HOME": str(tmp_path / "none")}, path)
    with pytest.raises(TrustError, match="cannot read"):
        load({"HOME": str(tmp_path / "none")}, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defualt = 'deny'", "defualt"),
        ("default = 'Deny'", "default"),
        ("default = 'signed'", "default"),
        ("[rule]\nprefix = 'docker.io'\naction = 'deny'", "rule"),
        ("[[rules]]\nprefix = 'docker.io'\naction = 'deny'", "rules"),
        ("[[rule]]\nprefix = 'docker.io'", "action"),
        ("[[rule]]\naction = 'deny'", "prefix"),
        ("[[rule]]\nprefix = 'docker.io'\naction = 'forbid'", "action"),
        ("[[rule]]\nprefix = 'docker.io'\naction = 'signed'", "names no keys"),
        ("[[rule]]\nprefix = 'docker.io'\naction = 'allow'\nkeys = ['k']", "keys are for"),
        ("[[rule]]\nprefix = 'docker.io'\naction = 'deny'\nkey = 'k'", "key"),
        ("[[rule]]\nprefix = 'library/python'\naction = 'deny'", "must begin with a registry"),
        ("[[rule]]\nprefix = 'python'\naction = 'deny'", "must begin with a registry"),
        ("[[rule]]\nprefix = 'docker.io/*'\naction = 'deny'", "beginning of a name"),
        ("[[rule]]\nprefix = ''\naction = 'deny'", "rule"),
        ("[[rule]]\nprefix = 'docker.io/python:3'\naction = 'deny'", "beginning of a name"),
        ("[[rule]]\nprefix = 'ghcr.io'\naction = 'deny'\n[[rule]]\nprefix = 'ghcr.io/'\naction = 'allow'", "two rules"),
        ("[[rule]]\nprefix = 'GHCR.io'\naction = 'deny'\n[[rule]]\nprefix = 'ghcr.io'\naction = 'allow'", "two rules"),
        ("default = deny", "line 1"),
        ("\0", "line 1"),
    ],
)
def test_mistakes_are_errors(text: str, said: str) -> None:
    """Anything that is not understood refuses everything, and the error says where and what."""
    with pytest.raises(TrustError, match=said) as caught:
        of(text)
    assert str(PATH) in caught.value.message
    assert "allows nothing" in str(caught.value.hint)


@pytest.mark.parametrize("prefix", ["docker.io", "localhost:5000", "localhost", "[::1]:5000/team", "ghcr.io/a/b/c"])
def test_prefixes_that_are_fine(prefix: str) -> None:
    """A registry alone, with a port, or with any part of a name."""
    with pytest.raises(TrustError):
        of(f'[[rule]]\nprefix = "{prefix}"\naction = "deny"').check(f"{prefix}/x", [])


@given(st.text(max_size=60))
def test_any_text_is_a_policy_or_an_error(text: str) -> None:
    """No text makes a policy crash."""
    try:
        policy = of(text)
    except TrustError:
        return
    policy.check_local((), [])
