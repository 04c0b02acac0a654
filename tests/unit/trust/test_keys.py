"""Keys: what is written, what is read, and that secrets stay where they are."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from nacl.secret import SecretBox

from mlbox.errors import TrustError, UsageError
from mlbox.trust.keys import PrivateKey, generate, load_private, load_public, parse_public

PASSWORD = b"correct horse"
PLAIN = serialization.NoEncryption()
PKCS8 = serialization.PrivateFormat.PKCS8
PEM = serialization.Encoding.PEM


def pem_of(public: Any) -> bytes:
    return bytes(public.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def never() -> bytes:
    raise AssertionError("asked for a password")


def test_the_private_file_is_the_owners_and_encrypted(key_files: tuple[Path, Path]) -> None:
    """The private key is mode 0600 and in cosign's encrypted form, the public one is plain."""
    private, public = key_files
    assert (private.suffix, private.stat().st_mode & 0o777) == (".key", 0o600)
    assert private.read_bytes().startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    assert (public.suffix, public.stat().st_mode & 0o777) == (".pub", 0o644)
    assert public.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")


def test_what_one_key_signs_its_public_file_verifies(key_files: tuple[Path, Path], key: PrivateKey) -> None:
    """A signature is good for its key and its data only."""
    public = load_public(key_files[1])
    signature = key.sign(b"data")
    assert public.verifies(signature, b"data")
    assert not public.verifies(signature, b"date")
    assert not public.verifies(b"no signature", b"data")
    assert public.fingerprint == key.public.fingerprint
    assert key.public.pem == key_files[1].read_bytes()


def test_equal_data_has_equal_signatures(key: PrivateKey) -> None:
    """Signing twice makes nothing new that would have to be kept or sent."""
    assert key.sign(b"data") == key.sign(b"data") != key.sign(b"date")


@pytest.mark.parametrize("ending", [".key", ".pub"])
def test_keys_are_never_overwritten(tmp_path: Path, ending: str) -> None:
    """A file of either name stops the making of both."""
    (tmp_path / f"k{ending}").write_text("mine")
    with pytest.raises(UsageError, match="never overwritten"):
        generate(tmp_path / "k", PASSWORD)
    assert [path.name for path in tmp_path.iterdir()] == [f"k{ending}"]
    assert (tmp_path / f"k{ending}").read_text() == "mine"


def test_a_key_needs_a_password(tmp_path: Path) -> None:
    """No key is written in the clear."""
    with pytest.raises(UsageError, match="needs a password"):
        generate(tmp_path / "k", b"")


def test_prefixes_with_dots_stay_whole(tmp_path: Path) -> None:
    """The ending is added, not exchanged."""
    assert [path.name for path in generate(tmp_path / "team.v1", PASSWORD)] == ["team.v1.key", "team.v1.pub"]


def test_a_wrong_password_says_so_and_nothing_else(key_files: tuple[Path, Path]) -> None:
    """The error names the file and the way out, and neither the password nor the key."""
    with pytest.raises(TrustError, match="wrong password") as caught:
        load_private(key_files[0], lambda: b"hunter2-wrong")
    said = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__}"
    assert str(key_files[0]) in said
    assert "hunter2" not in said
    body = key_files[0].read_text().splitlines()[1]
    assert body[:20] not in said


def test_keys_do_not_print_themselves(key: PrivateKey) -> None:
    """What a log would show of a key is its file's name."""
    assert repr(key) == f"PrivateKey({key.public.name})"


def test_plain_keys_of_openssl_are_read_without_asking(tmp_path: Path, need: Callable[[str], str]) -> None:
    """A key without a password is used as it is."""
    path = tmp_path / "k.pem"
    command = [need("openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    assert load_private(path, never).sign(b"x")


def test_openssl_verifies_our_signature(
    tmp_path: Path, key: PrivateKey, key_files: tuple[Path, Path], need: Callable[[str], str]
) -> None:
    """Another program finds the signature good, and one of other data bad."""
    (tmp_path / "sig").write_bytes(key.sign(b"payload"))
    (tmp_path / "data").write_bytes(b"payload")
    command = [need("openssl"), "dgst", "-sha256", "-verify", key_files[1], "-signature", tmp_path / "sig"]
    assert subprocess.run([*command, tmp_path / "data"], capture_output=True).returncode == 0
    (tmp_path / "data").write_bytes(b"payl0ad")
    assert subprocess.run([*command, tmp_path / "data"], capture_output=True).returncode != 0


def test_keys_of_cosigns_users_verify() -> None:
    """P-384 with either hash, P-521, RSA and Ed25519."""
    sha256, sha384, sha512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
    for curve, kinds in ((ec.SECP256R1(), (sha256,)), (ec.SECP384R1(), (sha256, sha384)), (ec.SECP521R1(), (sha512,))):
        private = ec.generate_private_key(curve)
        public = parse_public(pem_of(private.public_key()), "k.pub")
        for kind in kinds:
            assert public.verifies(private.sign(b"x", ec.ECDSA(kind)), b"x")
    of_rsa = rsa.generate_private_key(65537, 2048)
    public = parse_public(pem_of(of_rsa.public_key()), "k.pub")
    assert public.verifies(of_rsa.sign(b"x", padding.PKCS1v15(), sha256), b"x")
    assert not public.verifies(of_rsa.sign(b"x", padding.PKCS1v15(), hashes.SHA1()), b"x")
    edwards = ed25519.Ed25519PrivateKey.generate()
    assert parse_public(pem_of(edwards.public_key()), "k.pub").verifies(edwards.sign(b"x"), b"x")


def test_a_weak_hash_is_not_accepted() -> None:
    """SHA-1 is none of the hashes that a P-256 key may have been used with."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = parse_public(pem_of(private.public_key()), "k.pub")
    assert not public.verifies(private.sign(b"x", ec.ECDSA(hashes.SHA1())), b"x")


def test_weak_and_unknown_public_keys_are_refused() -> None:
    """Short RSA keys and other curves are no keys for us."""
    for public in (
        rsa.generate_private_key(65537, 1024).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
    ):
        with pytest.raises(TrustError, match="kind"):
            parse_public(pem_of(public), "k.pub")


@pytest.mark.parametrize("data", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    """Damaged files have an error of ours."""
    with pytest.raises(TrustError, match="no public key"):
        parse_public(data, "k.pub")


def test_a_private_key_is_not_taken_for_a_public_one(key_files: tuple[Path, Path]) -> None:
    """The error says how to get the public one, and shows nothing of the key."""
    with pytest.raises(TrustError, match="is a private key") as caught:
        load_public(key_files[0])
    assert "key public" in str(caught.value.hint)


@pytest.mark.parametrize(
    "private", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()], ids=["p384", "ed25519"]
)
def test_only_p256_signs(tmp_path: Path, private: Any) -> None:
    """The scheme that everybody reads is the only one that is written."""
    (tmp_path / "k").write_bytes(private.private_bytes(PEM, PKCS8, PLAIN))
    with pytest.raises(TrustError, match="P-256"):
        load_private(tmp_path / "k", never)


def test_missing_and_huge_files(tmp_path: Path) -> None:
    """A file that is not there, is a folder or is huge is no key."""
    with pytest.raises(TrustError, match="there is no key"):
        load_public(tmp_path / "none")
    with pytest.raises(TrustError, match="cannot read"):
        load_public(tmp_path)
    (tmp_path / "huge").write_bytes(b"x" * (1 << 20))
    with pytest.raises(TrustError, match="too large"):
        load_public(tmp_path / "huge")


def cosign_key(private: Any, *, n: int = 1 << 15, kind: str = "SIGSTORE") -> bytes:
    """Return a key file as cosign writes it."""
    salt, nonce = b"s" * 32, b"n" * 24
    der = private.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN)
    sealing = hashlib.scrypt(PASSWORD, salt=salt, n=n, r=8, p=1, maxmem=1 << 28, dklen=32)
    text = {
        "kdf": {"name": "scrypt", "params": {"N": n, "r": 8, "p": 1}, "salt": base64.b64encode(salt).decode()},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(SecretBox(sealing).encrypt(der, nonce).ciphertext).decode(),
    }
    body = base64.encodebytes(json.dumps(text).encode()).decode()
    return f"-----BEGIN ENCRYPTED {kind} PRIVATE KEY-----\n{body}-----END ENCRYPTED {kind} PRIVATE KEY-----\n".encode()


@pytest.mark.parametrize("kind", ["SIGSTORE", "COSIGN"])
def test_cosigns_own_keys_sign(tmp_path: Path, kind: str) -> None:
    """A key that cosign generated is used with its password."""
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "cosign.key").write_bytes(cosign_key(private, kind=kind))
    loaded = load_private(tmp_path / "cosign.key", lambda: PASSWORD)
    assert parse_public(pem_of(private.public_key()), "k").verifies(loaded.sign(b"x"), b"x")
    with pytest.raises(TrustError, match="wrong password"):
        load_private(tmp_path / "cosign.key", lambda: b"other")


def test_a_guess_at_the_password_costs_memory(key_files: tuple[Path, Path]) -> None:
    """The parameters are those that cosign writes, the salt is new for each key."""
    sealed = json.loads(base64.b64decode("".join(key_files[0].read_text().splitlines()[1:-1])))
    assert sealed["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert list(sealed) == ["kdf", "cipher", "ciphertext"]
    other = generate(key_files[0].with_name("other"), PASSWORD)[0]
    assert sealed["kdf"]["salt"] not in base64.b64decode("".join(other.read_text().splitlines()[1:-1])).decode()


def test_keys_of_openssl_with_a_password_sign(tmp_path: Path) -> None:
    """As do those that earlier versions of mlbox made."""
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "k").write_bytes(private.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(PASSWORD)))
    assert load_private(tmp_path / "k", lambda: PASSWORD).sign(b"x")
    with pytest.raises(TrustError, match="wrong password"):
        load_private(tmp_path / "k", lambda: b"other")


def test_cosigns_keys_cannot_ask_for_any_amount_of_work(tmp_path: Path) -> None:
    """Parameters that cosign never writes are refused before anything is computed."""
    (tmp_path / "k").write_bytes(cosign_key(ec.generate_private_key(ec.SECP256R1()), n=1 << 10))
    with pytest.raises(TrustError, match="does not know"):
        load_private(tmp_path / "k", lambda: PASSWORD)
