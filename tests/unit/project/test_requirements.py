"""Requirement files: lines, options, nested files, encodings, hostile input."""

import codecs
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ProjectError
from mlbox.project.model import IndexOptions
from mlbox.project.problems import Problems
from mlbox.project.reading import MAX_SIZE
from mlbox.project.requirement import Itself
from mlbox.project.requirements import RequirementFiles, logical_lines, split_options


def read(
    root: Path, files: Mapping[str, str | bytes], first: str = "requirements.txt", **environ: str
) -> RequirementFiles:
    """Write `files`, read the `first`, and raise its problems."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems = Problems()
    reader = RequirementFiles(root, problems, environ)
    reader.add(root / first)
    problems.check()
    return reader


def texts(reader: RequirementFiles) -> list[str]:
    """The requirements' texts."""
    return [requirement.text for requirement in reader.requirements]


def test_lines_as_pip_joins_them() -> None:
    """Comments end continuations, a '#' inside a word is none, numbers are those of the first line."""
    text = "a # c\n#c\n\nb \\\n  --hash=x \\\n# comment\nc\\\n # end\nurl#egg=a\nlast\\"
    assert list(logical_lines(text)) == [(1, "a"), (4, "b   --hash=x"), (7, "c"), (9, "url#egg=a"), (10, "last")]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("a==1 --hash=x", ("a==1", "--hash=x")),
        ("-r other.txt", ("", "-r other.txt")),
        ("a-b --pre", ("a-b", "--pre")),
        ("a ; python_version < '3' --hash=x", ("a ; python_version < '3'", "--hash=x")),
        ("a", ("a", "")),
    ],
)
def test_options_begin_at_a_dash(line: str, parts: tuple[str, str]) -> None:
    """A dash inside a name is no option."""
    assert split_options(line) == parts


def test_nested_files_are_relative_to_the_including_one(tmp_path: Path) -> None:
    """-r and -c are followed, in place; what is read says by whom."""
    reader = read(
        tmp_path,
        {
            "requirements.txt": "first\n-r sub/base.txt\nlast\n",
            "sub/base.txt": "-c limits.txt\n-rmore.txt\nbase",
            "sub/limits.txt": "numpy<3",
            "sub/more.txt": "more",
        },
    )

    assert texts(reader) == ["first", "more", "base", "last"]
    assert [constraint.text for constraint in reader.constraints] == ["numpy<3"]
    assert reader.requirements[1].origin == "sub/more.txt:1"
    assert reader.read == [
        ("requirements.txt", ""),
        ("sub/base.txt", "requirements.txt:2"),
        ("sub/limits.txt", "sub/base.txt:1"),
        ("sub/more.txt", "sub/base.txt:2"),
    ]


def test_a_diamond_is_read_once_and_a_cycle_is_an_error(tmp_path: Path) -> None:
    """Including twice is fine; including oneself never ends."""
    diamond = {"requirements.txt": "-r a.txt\n-r b.txt", "a.txt": "-r c.txt", "b.txt": "-r c.txt", "c.txt": "x"}
    assert texts(read(tmp_path, diamond)) == ["x"]

    with pytest.raises(ProjectError, match=r"b\.txt:1: includes requirements\.txt"):
        read(tmp_path, {"requirements.txt": "-r b.txt", "b.txt": "-r requirements.txt"})


def test_index_options(tmp_path: Path) -> None:
    """All of them, in any file; the last index wins, lists add up."""
    reader = read(
        tmp_path,
        {
            "requirements.txt": "-i https://one/simple\n--index-url=https://two/simple\n--extra-index-url https://x/s\n"
            "-f wheels --pre\n--prefer-binary\n--require-hashes --trusted-host h\n--only-binary a_B,c\n-r sub/more.txt",
            "sub/more.txt": "--extra-index-url https://y/s\n--find-links near\n--no-binary :all:\n--no-binary :none:\n"
            "--no-binary z\n--use-feature fast-deps",
            "sub/near/x.whl": "",
        },
    )

    assert reader.index == IndexOptions(
        index_url="https://two/simple",
        extra_index_urls=("https://x/s", "https://y/s"),
        find_links=("wheels", "sub/near"),
        pre=True,
        prefer_binary=True,
        require_hashes=True,
        trusted_hosts=("h",),
        only_binary=("a-b", "c"),
        no_binary=("z",),
    )
    assert reader.notes == ["sub/more.txt:6: --use-feature has no effect"]


def test_no_index_forgets_the_indexes(tmp_path: Path) -> None:
    """As in pip."""
    reader = read(tmp_path, {"requirements.txt": "-i https://one/simple\n--no-index\n--extra-index-url https://x/s"})
    assert reader.index == IndexOptions(no_index=True)


def test_hashes_and_build_settings(tmp_path: Path) -> None:
    """Hashes on continuation lines, in both spellings, come in one order."""
    reader = read(
        tmp_path,
        {
            "requirements.txt": "a==1 \\\n  --hash=sha256:BB \\\n  --hash sha256:aa  # why\n"
            "b --hash=sha512:cc --config-settings K=V -C L=W\n"
        },
    )
    assert texts(reader) == ["a==1 --hash=sha256:aa --hash=sha256:bb", "b --hash=sha512:cc"]
    assert reader.requirements[1].config_settings == ("K=V", "L=W")


def test_hash_of_a_local_file_is_checked(tmp_path: Path) -> None:
    """The file is at hand, so there is no need to wait for the resolver."""
    good = hashlib.sha256(b"wheel").hexdigest()
    files = {"x-1-py3-none-any.whl": "wheel", "requirements.txt": f"./x-1-py3-none-any.whl --hash=sha256:{good}"}
    assert texts(read(tmp_path, files)) == ["./x-1-py3-none-any.whl"]

    with pytest.raises(ProjectError, match="another hash"):
        read(tmp_path, {"requirements.txt": "./x-1-py3-none-any.whl --hash=sha256:00"})


def test_variables(tmp_path: Path) -> None:
    """Set ones are replaced, unset ones stay and are told."""
    reader = read(
        tmp_path, {"requirements.txt": "-i https://${TOKEN}@h/${MISSING}\na==${V} ; os_name!='$V'"}, TOKEN="t", V="1"
    )
    assert reader.index.index_url == "https://t@h/${MISSING}"
    assert texts(reader) == ['a==1; os_name != "$V"']
    assert reader.notes == ["requirements.txt:1: the environment variable MISSING is not set"]


def test_the_project_itself(tmp_path: Path) -> None:
    """'-e .[x]' and '.' add up and are no requirements."""
    reader = read(tmp_path, {"requirements.txt": "-e .[dev]\n.[test]\n"})
    assert reader.itself == Itself(extras=("dev", "test"))
    assert reader.itself_at == "requirements.txt:1"
    assert texts(reader) == []


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + "grün # é".encode(),
        codecs.BOM_UTF16_LE + "grün # é".encode("utf-16-le"),
        codecs.BOM_UTF32_BE + "grün # é".encode("utf-32-be"),
        "# -*- coding: latin-1 -*-\n./grün.whl".encode("latin-1"),
        "# comment\n# vim: set fileencoding=cp1252 :\n./grün.whl".encode("cp1252"),
    ],
)
def test_encodings(tmp_path: Path, content: bytes) -> None:
    """A byte order mark or PEP 263 comment says what the bytes are."""
    (tmp_path / "grün.whl").touch()
    if b"coding" in content:
        assert texts(read(tmp_path, {"requirements.txt": content})) == ["./grün.whl"]
    else:
        with pytest.raises(ProjectError, match="'grün'"):
            read(tmp_path, {"requirements.txt": content})


BAD: list[tuple[str | bytes, str]] = [
    (
        "# This file\n# $ conda create --name <env> --file <this file>\nnumpy=1.19.2=py38_0\n",
        "is a list of conda's packages",
    ),
    ("# $ conda create --name <env> --file <this file>\n@EXPLICIT\n", "is a list of conda's packages"),
    ("-r missing.txt", r"requirements\.txt:1: missing\.txt does not exist"),
    ("-r folder", "folder is not a regular file"),
    ("-r ../../../../../../../etc/hostname", "leaves the repository"),
    ("-r https://host/requirements.txt", "another machine"),
    ("-r https://me:s3cret@host/requirements.txt", "^((?!s3cret).)*another machine"),
    ("--frobnicate", "no such option"),
    ("--index-url", "argument"),
    ("-r 'open", "quotation"),
    ("a --hash=md5:aa", "not a hash"),
    ("a --hash=sha256:xyz", "not a hash"),
    ("--hash=sha256:aa", "without a requirement"),
    ("a --pre b", "unexpected 'b'"),
    ("a -C novalue", "no value"),
    ("-c c.txt", "folder or file"),
    ("-c extras.txt", "extras"),
    ("a\0b", "NUL"),
    (b"\xff\xfe\xff", "utf-16"),
    (b"\xe9", "utf-8"),
    (b"# coding: no-such-codec\na", "no-such-codec"),
    (b"# coding: zip\na", "zip"),
    (b"# coding: undefined\na", "undefined"),
    ("a\n" * 50_001, r"requirements\.txt:50001: too long"),
    ("a" + " " * 2**16 + "b", "too long"),
    ("a b\n" * 60, "60 problems"),
    (b"a\n" * (MAX_SIZE // 2 + 1), "larger than 10 MiB"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[repr(row[0][:25]) for row in BAD])
def test_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    """Each bad line or file is a problem with its place."""
    (tmp_path / "folder").mkdir()
    files = {"requirements.txt": content, "c.txt": ".", "extras.txt": "a[b]"}
    with pytest.raises(ProjectError, match=message):
        read(tmp_path, files)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Nobody wants to mend a file line by line."""
    with pytest.raises(ProjectError) as refused:
        read(tmp_path, {"requirements.txt": "a=1\nfine\n-r missing.txt\n--nonsense\n"})
    assert str(refused.value).startswith("3 problems")
    assert all(f"requirements.txt:{line}: " in str(refused.value) for line in (1, 3, 4))


def test_files_elsewhere_in_the_repository_count(tmp_path: Path) -> None:
    """In a repository of many projects, constraints often lie at its top; symlinks do not lead out of it."""
    (tmp_path / "repo/.git").mkdir(parents=True)
    (tmp_path / "repo/common.txt").write_text("numpy<3")
    (tmp_path / "outside.txt").write_text("secret")
    root = tmp_path / "repo/project"
    assert [one.origin for one in read(root, {"requirements.txt": "-c ../common.txt"}).constraints] == [
        "../common.txt:1"
    ]

    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(ProjectError, match="leaves the repository"):
        read(root, {"requirements.txt": "-r link.txt"})


def test_many_files_are_bounded(tmp_path: Path) -> None:
    """A chain of includes ends in an error, not in a crash."""
    files: dict[str, str | bytes] = {f"r{n}.txt": f"-r r{n + 1}.txt" for n in range(300)}
    with pytest.raises(ProjectError, match="more than 100"):
        read(tmp_path, files, "r0.txt")


@given(st.binary(max_size=80) | st.text(alphabet="ab=-rce.\\ \n#;'\"[]${}A@/:", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Nothing but ProjectError leaves the reader."""
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    try:
        read(root, {"requirements.txt": content})
    except ProjectError as problem:
        assert problem.message
