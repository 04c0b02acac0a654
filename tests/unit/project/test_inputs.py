"""When a lock is stale: what changes the digest of its inputs, and what does not."""

from pathlib import Path

import pytest

from mlbox.project.discover import inputs_digest, load_project
from mlbox.project.model import Project, Requirement, Settings

BASE = {
    "requirements.txt": "numpy>=1.20,<3\ntorch\n-r more.txt\n",
    "more.txt": "-c limits.txt\n--extra-index-url https://host/simple\n./x-1-py3-none-any.whl\n",
    "limits.txt": "scipy<2\n",
    "x-1-py3-none-any.whl": "wheel",
    "mlbox.toml": 'python = "3.11"\nsystem-packages = ["git", "ffmpeg"]\n',
}


def digest(root: Path, changes: dict[str, str]) -> str:
    """The digest of BASE with `changes`."""
    root.mkdir()
    for name, content in {**BASE, **changes}.items():
        (root / name).write_text(content)
    return inputs_digest(load_project(root))


SAME = {
    "comments": {"requirements.txt": "# why\nnumpy>=1.20,<3  # because\ntorch\n\n-r more.txt\n"},
    "whitespace": {"requirements.txt": "numpy >= 1.20 , < 3\ntorch \\\n\n  -r more.txt\n"},
    "order": {"requirements.txt": "-r more.txt\ntorch\nnumpy<3,>=1.20\n"},
    "layout": {"requirements.txt": "numpy>=1.20,<3\ntorch\n" + BASE["more.txt"], "more.txt": ""},
    "twice": {"requirements.txt": BASE["requirements.txt"] + "torch\n"},
    "credentials": {"more.txt": BASE["more.txt"].replace("https://", "https://me:secret@")},
    "image settings": {
        "mlbox.toml": BASE["mlbox.toml"] + 'command = "x"\nenv = {A = "b"}\nworkdir = "/w"\nresolver = "pip-tools"\n'
    },
    "patch of Python": {"mlbox.toml": 'system-packages = ["ffmpeg", "git"]\n', ".python-version": "3.11.4\n"},
}

OTHER = {
    "build packages": {"mlbox.toml": BASE["mlbox.toml"] + 'build-packages = ["cmake"]\n'},
    "build base": {"mlbox.toml": BASE["mlbox.toml"] + 'build-base = "host/x:1"\n'},
    "architectures": {"mlbox.toml": BASE["mlbox.toml"] + 'gpu-architectures = ["8.0"]\n'},
    "options of a build": {"mlbox.toml": BASE["mlbox.toml"] + "[build.numpy]\ngpu = true\n"},
    "requirement": {"requirements.txt": BASE["requirements.txt"] + "pandas\n"},
    "version": {"requirements.txt": BASE["requirements.txt"].replace("<3", "<4")},
    "constraint": {"limits.txt": "scipy<3"},
    "index": {"more.txt": BASE["more.txt"].replace("host", "other")},
    "pre": {"more.txt": BASE["more.txt"] + "--pre\n"},
    "format": {"more.txt": BASE["more.txt"] + "--no-binary torch\n"},
    "build setting": {"requirements.txt": BASE["requirements.txt"].replace("torch", "torch -C A=B")},
    "content of a local wheel": {"x-1-py3-none-any.whl": "other"},
    "python": {"mlbox.toml": BASE["mlbox.toml"].replace("3.11", "3.12")},
    "requires-python": {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\n'},
    "accelerator": {"mlbox.toml": BASE["mlbox.toml"] + 'accelerator = "cu126"\n'},
    "system package": {"mlbox.toml": BASE["mlbox.toml"].replace('"git", ', "")},
    "pip": {"mlbox.toml": BASE["mlbox.toml"] + "pip = false\n"},
    "find-links": {"mlbox.toml": BASE["mlbox.toml"] + 'find-links = ["w"]\n'},
}


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_same(tmp_path: Path, changes: dict[str, str]) -> None:
    """What cannot change the lock leaves it fresh."""
    assert digest(tmp_path / "a", {}) == digest(tmp_path / "b", changes)


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER)
def test_other(tmp_path: Path, changes: dict[str, str]) -> None:
    """What can change the lock makes it stale."""
    assert digest(tmp_path / "a", {}) != digest(tmp_path / "b", changes)


def test_conda(tmp_path: Path) -> None:
    """Channels in their order and packages count; passwords and tokens do not."""

    def conda(channels: str, dependencies: str = "a, b") -> str:
        text = f"channels: [{channels}]\ndependencies: [{dependencies}]\n"
        (tmp_path / "environment.yml").write_text(text)
        return inputs_digest(load_project(tmp_path))

    plain = conda("https://c.example.org/x, y")
    assert plain == conda("https://me:pw@c.example.org/x, y", "b, a")
    assert plain == conda("https://c.example.org/t/se-cret/x, y")
    assert len({plain, conda("y, https://c.example.org/x"), conda("https://c.example.org/x, y", "a, b>1")}) == 3


def test_stable() -> None:
    """The digest is written in locks that are committed: it must not depend on this machine or mlbox's internals."""
    one = Project(
        root=Path("/p"),
        name="p",
        settings=Settings(),
        sources=(),
        requirements=(Requirement(text="numpy", origin="requirements.txt:1"),),
    )
    assert inputs_digest(one) == "sha256:281bd6af521126ea8e21ba72ab2e73a4363d72d02ebee6793673082f68712b0f"


def test_sources_of_packages_and_days_count(tmp_path: Path) -> None:
    """A key by its content, an address without what is secret in it, and nothing when there are none."""

    def with_settings(name: str, key: str, more: str) -> str:
        table = 'apt-sources = [{name = "v", uri = "https://v.example", suite = "./", key = "v.asc"}]\n'
        return digest(tmp_path / name, {"mlbox.toml": BASE["mlbox.toml"] + table + more, "v.asc": key})

    one = with_settings("one", "key", "")
    assert one == with_settings("same", "key", "")
    other = [with_settings("key", "another", ""), with_settings("day", "key", 'snapshot = "2026-09-01"')]
    assert len({one, digest(tmp_path / "none", {}), *other}) == 4
