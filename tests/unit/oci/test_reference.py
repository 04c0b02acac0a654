import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import UsageError
from mlbox.oci.reference import Reference, parse_reference

D = "sha256:" + "0123456789abcdef" * 4
registries = st.sampled_from(["docker.io", "localhost", "localhost:5000", "reg.example:443", "[::1]:5000", "10.0.0.1"])
parts = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-{1,3})[a-z0-9]+){0,2}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    digest = draw(st.sampled_from(["", f"@{D}"]))
    tag = draw(st.sampled_from(["", ":"])) or ("" if digest else ":")
    name = "/".join(draw(st.lists(parts, min_size=1, max_size=3)))
    return parse_reference(f"{draw(registries)}/{name}{tag and tag + draw(tags)}{digest}")


@given(references())
def test_the_whole_and_the_familiar_name_parse_back(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("bert", "docker.io/library/bert:latest", "bert:latest"),
        ("me/bert:1", "docker.io/me/bert:1", "me/bert:1"),
        ("localhost/bert", "localhost/bert:latest", "localhost/bert:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        (f"me/bert@{D}", f"docker.io/me/bert@{D}", f"me/bert@{D}"),
        (f"me/bert:1@{D}", f"docker.io/me/bert:1@{D}", f"me/bert:1@{D}"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("docker.io/a.b/c:1", "docker.io/a.b/c:1", "docker.io/a.b/c:1"),
        ("docker.io/library/team/x:1", "docker.io/library/team/x:1", "library/team/x:1"),
    ],
)
def test_defaults(text: str, whole: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (whole, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "Bert",
        "a:",
        "a:b:c",
        "a:" + "t" * 129,
        "a@",
        "a@sha256:12",
        "sha256:12",
        D,
        f"a@{D}@{D}",
        "a/../b",
        "a b",
        "a\n",
        "ä",
        "-a",
        "a_",
        "x.example/" + "a" * 256,
        "a" * 100_000 + "!",
        "a-" * 100_000,
        "registry.example:65536/a",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an image name"):
        parse_reference(text)


@pytest.mark.parametrize("before", ["", "https://", "docker://"])
def test_a_password_in_a_name_is_not_shown(before: str) -> None:
    """Somebody pastes a URL with a login in it; the message may end up in a log of others."""
    for text in (f"{before}bob:S3cret@registry.example/team/x:1", f"{before}bob:S3cret@{'a' * 500}!"):
        with pytest.raises(UsageError) as caught:
            parse_reference(text)
        assert "S3cret" not in caught.value.message
        assert "mlbox login" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="python:3@sha256:12"):
        parse_reference("python:3@sha256:12")
