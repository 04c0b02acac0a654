"""Files of logins as Docker and podman write them, and the programs that keep logins instead."""

import base64
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from mlbox.errors import RegistryError
from mlbox.registry.credentials import Credentials
from mlbox.registry.dockerconfig import erase_login, keys_of, login_paths, logins_of, save_login
from mlbox.registry.login import log_out

SECRET = "open-sesame-4711"
ME = Credentials(username="me", password=SECRET)
HUB = "https://index.docker.io/v1/"

HELPER = """#!{python}
import json, os, sys
path = {path!r}
kept = json.load(open(path)) if os.path.exists(path) else {{}}
given = sys.stdin.read()
assert "{secret}" not in " ".join(sys.argv)
if sys.argv[1] == "get":
    if given not in kept:
        print("credentials not found in native keychain")
        sys.exit(1)
    print(json.dumps({{"ServerURL": given, **kept[given]}}))
elif sys.argv[1] == "store":
    one = json.loads(given)
    kept[one["ServerURL"]] = {{"Username": one["Username"], "Secret": one["Secret"]}}
else:
    del kept[given]
json.dump(kept, open(path, "w"))
"""


def encoded(user: str, password: str) -> str:
    """Return what stands under 'auth'."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write(path: Path, document: object) -> Path:
    """Write a file of logins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the file of logins is; it is not there."""
    return tmp_path / "docker/config.json"


@pytest.fixture
def keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the program docker-credential-test keeps its logins."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-test"
    program.write_text(HELPER.format(python=sys.executable, path=str(tmp_path / "chain.json"), secret=SECRET))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "chain.json"


def found(config: Path, registry: str, repository: str = "team/bert") -> Credentials | None:
    """Return the login that `config` has."""
    return logins_of(registry, (config,))(repository)


@pytest.mark.parametrize("key", [HUB, "index.docker.io", "docker.io", "registry-1.docker.io"])
def test_names_of_docker_hub(config: Path, key: str) -> None:
    """Docker Hub has an address of old as its key; its other names are understood."""
    write(config, {"auths": {key: {"auth": encoded("me", SECRET)}}})
    assert found(config, "docker.io", "library/python") == ME


@pytest.mark.parametrize("key", ["r.example:5000", "https://r.example:5000", "https://r.example:5000/v1/"])
def test_keys_of_registries(config: Path, key: str) -> None:
    """With or without a scheme."""
    write(config, {"auths": {key: {"auth": encoded("me", SECRET)}}})
    assert found(config, "r.example:5000") == ME
    assert found(config, "r.example") is None


def test_namespaces(config: Path) -> None:
    """The longest key that fits is taken (containers-auth.json)."""
    auths = {
        key: {"auth": encoded(key, "pw")}
        for key in ("r.example", "r.example/team", "r.example/team/bert", "r.example/te")
    }
    write(config, {"auths": auths})

    def user(repository: str) -> str:
        login = found(config, "r.example", repository)
        return login.username if login else ""

    assert user("team/bert") == "r.example/team/bert"
    assert user("team/bert/large") == "r.example/team/bert"
    assert user("team/other") == "r.example/team"
    assert user("teams") == "r.example"
    assert user("") == "r.example"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("me", "a:b:c")}, Credentials(username="me", password="a:b:c")),
        ({"username": "me", "password": SECRET}, ME),
        ({"auth": encoded("me", ""), "identitytoken": "t"}, Credentials(username="me", identity_token="t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
        ({"auth": "", "email": "x@y"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_entries(config: Path, entry: object, expected: Credentials | None) -> None:
    """All forms of an entry, and empty ones."""
    write(config, {"auths": {"r.example": entry}})
    assert found(config, "r.example") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "malformed|truncated"),
        ("[]", "Expected `object`"),
        ('{"auths":{"r.example":7}}', "auths"),
        ('{"auths":{"r.example":{"auth":"***"}}}', "damaged"),
        ('{"auths":{"r.example":{"auth":"b3Blbi1zZXNhbWUtNDcxMf8="}}}', "damaged"),
        ("[" * 100_000, "config.json"),
    ],
)
def test_damaged_files(config: Path, text: str, words: str) -> None:
    """The file is named, nothing of its content is shown."""
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(RegistryError, match=words) as caught:
        found(config, "r.example")
    assert str(config) in caught.value.message
    assert "sesame" not in caught.value.message
    assert "b3Bl" not in caught.value.message


def test_missing_and_empty_files(config: Path) -> None:
    """Mean nobody."""
    assert found(config, "r.example") is None
    config.parent.mkdir()
    config.write_text("")
    assert found(config, "r.example") is None


def test_first_file_that_knows_wins(tmp_path: Path) -> None:
    """Docker's and podman's files are both looked at."""
    first, second = {"auth": encoded("one", "x")}, {"auth": encoded("two", "x")}
    one = write(tmp_path / "one.json", {"auths": {"a.example": first}})
    two = write(tmp_path / "two.json", {"auths": {"a.example": second, "b.example": second}})
    users = [login.username for host in ("a.example", "b.example") if (login := logins_of(host, (one, two))("x"))]
    assert users == ["one", "two"]


def test_where_files_are(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REGISTRY_AUTH_FILE, Docker's, podman's."""
    assert login_paths() == (
        own_environment / ".docker/config.json",
        own_environment / "run/containers/auth.json",
        own_environment / ".config/containers/auth.json",
    )
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/x/auth.json")
    monkeypatch.setenv("DOCKER_CONFIG", "/y")
    assert login_paths()[:2] == (Path("/x/auth.json"), Path("/y/config.json"))


def test_save_keeps_everything_else(config: Path) -> None:
    """Other keys and logins stay in their order; only the owner can read the file."""
    before = {"HttpHeaders": {"X": "1"}, "auths": {"z.example": {"auth": "eg=="}}, "detachKeys": "ctrl-e"}
    write(config, before)
    config.chmod(0o644)

    place = save_login("docker.io", ME, config)

    after = json.loads(config.read_text())
    assert place == str(config)
    assert after == before | {"auths": {"z.example": {"auth": "eg=="}, HUB: {"auth": encoded("me", SECRET)}}}
    assert list(after) == list(before)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert found(config, "docker.io") == ME


def test_save_through_a_link(config: Path, tmp_path: Path) -> None:
    """A file that is a link stays one."""
    real = write(tmp_path / "dotfiles/config.json", {})
    config.parent.mkdir()
    config.symlink_to(real)
    save_login("r.example", ME, config)
    assert config.is_symlink()
    assert found(real, "r.example") == ME


def test_first_login_makes_the_file(config: Path) -> None:
    """In a folder that only the owner sees."""
    save_login("r.example", ME, config)
    assert found(config, "r.example") == ME
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700


def test_erase(config: Path) -> None:
    """All spellings of the registry go, others stay."""
    auths = {key: {"auth": encoded("me", SECRET)} for key in ("r.example", "https://r.example", "q.example")}
    write(config, {"auths": auths})
    assert erase_login("r.example", (config,)) == (str(config),)
    assert list(json.loads(config.read_text())["auths"]) == ["q.example"]
    assert erase_login("r.example", (config,)) == ()


def test_log_out_looks_everywhere(own_environment: Path) -> None:
    """In Docker's file and in podman's."""
    for path in login_paths()[:2]:
        write(path, {"auths": {HUB: {"auth": encoded("me", SECRET)}}})
    assert log_out("index.docker.io") == tuple(str(path) for path in login_paths()[:2])
    assert logins_of("docker.io")("library/python") is None


def test_logging_out_of_nowhere_writes_nothing(config: Path) -> None:
    """A file without the login is not touched."""
    write(config, {"auths": {}})
    before = config.stat().st_mtime_ns
    assert erase_login("r.example", (config,)) == ()
    assert config.stat().st_mtime_ns == before


# Programs


@pytest.mark.parametrize("settings", [{"credsStore": "test"}, {"credHelpers": {"r.example": "test"}}])
def test_helpers_keep_logins(config: Path, keychain: Path, settings: dict[str, object]) -> None:
    """The login goes to the program, not into the file; and comes back; and goes away."""
    write(config, settings)

    place = save_login("r.example", ME, config)

    assert place == "docker-credential-test"
    assert json.loads(config.read_text()) == settings | {"auths": {"r.example": {}}}
    assert json.loads(keychain.read_text()) == {"r.example": {"Username": "me", "Secret": SECRET}}
    assert found(config, "r.example") == ME
    assert found(config, "q.example") is None
    assert erase_login("r.example", (config,)) == ("docker-credential-test",)
    assert json.loads(keychain.read_text()) == {}
    assert found(config, "r.example") is None


def test_helper_of_docker_hub(config: Path, keychain: Path) -> None:
    """By its address of old."""
    write(config, {"credsStore": "test"})
    save_login("docker.io", ME, config)
    assert list(json.loads(keychain.read_text())) == [HUB]
    assert found(config, "docker.io") == ME


def test_identity_tokens_of_helpers(config: Path, keychain: Path) -> None:
    """Are told by the user's name."""
    write(config, {"credsStore": "test"})
    keychain.write_text(json.dumps({"r.example": {"Username": "<token>", "Secret": "t"}}))
    assert found(config, "r.example") == Credentials(identity_token="t")


def test_missing_helpers(config: Path) -> None:
    """One for all registries may be missing (as after a move from a desktop), one for this registry may not."""
    write(config, {"credsStore": "no-such"})
    assert found(config, "r.example") is None
    write(config, {"credHelpers": {"r.example": "no-such"}})
    with pytest.raises(RegistryError, match="docker-credential-no-such is not installed") as caught:
        found(config, "r.example")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["../x", "a b", "", "x/y", "-x"])
def test_names_of_helpers(config: Path, name: str) -> None:
    """A name that climbs starts nothing."""
    write(config, {"credHelpers": {"r.example": name}})
    if not name:
        assert found(config, "r.example") is None
        return
    with pytest.raises(RegistryError, match="not the name of a credential helper"):
        found(config, "r.example")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo nonsense", "not understood"),
        (f'echo \'{{"Secret":7,"x":"{SECRET}"}}\'', "not understood"),
        (f"echo '{SECRET}' >&2; echo locked; exit 1", "locked"),
        ("kill -9 $$", "status -9"),
    ],
)
def test_helpers_that_fail(config: Path, keychain: Path, tmp_path: Path, script: str, words: str) -> None:
    """Are named; what they print on stderr is not repeated."""
    (tmp_path / "bin/docker-credential-test").write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
    write(config, {"credHelpers": {"r.example": "test"}})
    with pytest.raises(RegistryError, match="docker-credential-test") as caught:
        found(config, "r.example")
    assert SECRET not in str(caught.value)
    assert words in str(caught.value)
    assert "get' shows what is wrong" in str(caught.value.hint)


def test_a_helper_that_cannot_be_started(config: Path, keychain: Path, tmp_path: Path) -> None:
    """As any other that fails; and what one says that keeps nothing is passed on."""
    helper = tmp_path / "bin/docker-credential-test"
    write(config, {"credHelpers": {"r.example": "test"}})
    helper.write_text("no program")
    helper.chmod(0o755)
    with pytest.raises(RegistryError, match=r"get did not run: .*Exec format error"):
        found(config, "r.example")
    helper.write_text("#!/bin/sh\ncat >/dev/null\necho the keyring is locked\nexit 3\n")
    with pytest.raises(RegistryError, match="docker-credential-test store: the keyring is locked"):
        save_login("r.example", Credentials(username="me", password=SECRET), config)


def test_a_helper_sees_nothing_of_mlbox(
    config: Path, keychain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own variables it needs, and not the password of a key."""
    monkeypatch.setenv("MLBOX_KEY_PASSWORD", SECRET)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:x")
    helper = tmp_path / "bin/docker-credential-test"
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\nenv > {tmp_path}/env\necho credentials not found\nexit 1\n")
    write(config, {"credHelpers": {"r.example": "test"}})
    assert found(config, "r.example") is None
    seen = (tmp_path / "env").read_text()
    assert "DBUS_SESSION_BUS_ADDRESS" in seen
    assert SECRET not in seen


def test_a_damaged_file_says_what_it_is(config: Path) -> None:
    """Whoever meets it may never have heard of it."""
    write(config, {})
    config.write_text('{"auths":')
    with pytest.raises(RegistryError, match=r"config\.json") as caught:
        found(config, "r.example")
    assert "holds logins" in str(caught.value.hint)


def test_keys_are_ordered() -> None:
    """The most precise first."""
    assert keys_of("r.example", "a/b")[:3] == ("r.example/a/b", "r.example/a", "r.example")
