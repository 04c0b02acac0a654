"""[tool.mlbox]: types, unknown keys, impossible combinations, all told at once."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ProjectError
from mlbox.project.building import architecture, config_lines
from mlbox.project.model import Health, Settings, Task
from mlbox.project.problems import Problems
from mlbox.project.settings import Where, check_settings, read_settings


def settings(text: str, *, file: str = "mlbox.toml", root: Path = Path("/nowhere")) -> Settings:
    """Read and check settings as TOML `text`."""
    return checked(tomllib.loads(text), file=file, root=root)


def checked(table: dict[str, Any], *, file: str = "mlbox.toml", root: Path = Path("/nowhere")) -> Settings:
    """Read and check a table."""
    problems = Problems()
    read = read_settings(table, Where(file), problems)
    check_settings(read, Where(file), root, problems)
    problems.check()
    return read


@pytest.mark.parametrize("accelerator", ["cpu", "default", "cu126", "rocm6.4"])
def test_the_words_for_accelerators(accelerator: str) -> None:
    """'default' is what the index itself has, which for PyTorch is a build for CUDA."""
    assert settings(f"accelerator = {accelerator!r}").accelerator == accelerator


def test_everything_at_once(tmp_path: Path) -> None:
    """Each key there is, in its written form."""
    (tmp_path / "r.txt").touch()
    read = settings(
        """
        python = "3.11"
        accelerator = "cu126"
        resolver = "pip-tools"
        requirements = ["r.txt"]
        system-packages = ["libgl1", "g++"]
        index-url = "https://me:pw@host/simple"
        find-links = ["wheels"]
        pip = false
        workdir = "/srv/app"
        env = { A_1 = "x" }
        entrypoint = "tini --"
        command = ["python", "a b.py"]
        user = "1000:1000"
        ignore = ["*.ckpt"]
        [train]
        command = "python train.py --name 'a b'"
        outputs = "out/run"
        inputs = ["data"]
        [serve]
        command = "serve"
        port = 8000
        health = { path = "/ready?x=1", timeout = 5 }
        [tasks.eval]
        command = "python eval.py"
        env = { B = "y" }
        """,
        root=tmp_path,
    )

    assert read.entrypoint == ("tini", "--")
    assert read.command == ("python", "a b.py")
    assert read.train == Task(command=("python", "train.py", "--name", "a b"), outputs="out/run", inputs=("data",))
    assert read.serve == Task(command=("serve",), port=8000, health=Health(path="/ready?x=1", timeout=5.0))
    assert read.tasks == {"eval": Task(command=("python", "eval.py"), env={"B": "y"})}
    assert (read.pip, read.workdir, read.system_packages) == (False, "/srv/app", ("libgl1", "g++"))


BAD = [
    ("pythn = '3.11'", "[pythn]: unknown key", "did you mean 'python'?"),
    ("zzz = 1", "[zzz]: unknown key", "known: accelerator"),
    ("[train]\ncommand = 'x'\noutput = 'y'", "[train.output]: unknown key", "'outputs'"),
    ("[serve]\ncommand = 'x'\nport = 1\n[serve.health]\nurl = '/'", "[serve.health.url]: unknown key", "path"),
    ("python = 3.11", "[python]: expected str, got float", "in quotes"),
    ("python = '3.11.2'", "no Python version", 'python = "3.11"'),
    ("extras = 'dev'", "[extras]: expected array, got str", "as a list"),
    ("env = { PORT = 80 }", "[env]: expected str, got int", "in quotes"),
    ("resolver = 'poetry'", "[resolver]: invalid enum value 'poetry'", ""),
    ("train = 'x'", "[train]: must be a table", ""),
    ("[train]\noutputs = 'x'", "[train]: command is missing", 'command = "..."'),
    ("[train]\ncommand = ''", "[train.command]: is no command", ""),
    ('[train]\ncommand = "a \'b"', "quotation", ""),
    ("[train]\ncommand = 3", "[train.command]: expected", ""),
    ("[serve]\ncommand = 'x'", "[serve.port]: is missing", "port = 8000"),
    ("[serve]\ncommand = 'x'\nport = 70000", "70000 is no port", ""),
    ("[train]\ncommand = 'x'\nhealth = {path = '/'}", "[train.health]: needs a port", ""),
    ("[serve]\ncommand = 'x'\nport = 1\nhealth = {path = 'health'}", "no path of a URL", "/health"),
    ("[serve]\ncommand = 'x'\nport = 1\nhealth = {timeout = nan}", "no number of seconds", ""),
    ("[serve]\ncommand = 'x'\nport = 1\nhealth = {timeout = inf}", "no number of seconds", ""),
    ("[train]\ncommand = 'x'\noutputs = '../out'", "leaves the project", ""),
    ("[train]\ncommand = 'x'\noutputs = '/out'", "leaves the project", ""),
    ("[train]\ncommand = 'x'\noutputs = '.'", "is no path below", ""),
    ("[train]\ncommand = 'x'\ninputs = ['a', '']", "is no path below", ""),
    ("[train]\ncommand = 'x'\noutputs = 'a'\ninputs = ['a/b']", "overlaps the input 'a/b'", "read-only"),
    ("[train]\ncommand = 'x'\nenv = {'A-B' = 'x'}", "'A-B' is no name for an environment variable", ""),
    ('env = {A = "\\u0000"}', "NUL", ""),
    ("[tasks.train]\ncommand = 'x'", "cannot name a task", "declare it as [train]"),
    ("[tasks.'a/b']\ncommand = 'x'", "cannot name a task", "letters"),
    ("[tasks]\nx = 1", "must be a table", ""),
    ("accelerator = 'gpu'", "unknown accelerator 'gpu'", "cu126"),
    ("accelerator = 'CPU'", "unknown accelerator", ""),
    ("system-packages = ['libGL']", "no Debian package name", "libgl1"),
    ("system-packages = ['git=1.0']", "no Debian package name", "the lock pins the version"),
    ("allow-missing = ['libGL']", "[allow-missing]: 'libGL' is no shared library", "libGL.so.1"),
    ("configure = ['a b']", "[configure]: 'a b' is no Debian package name", ""),
    ("workdir = 'app'", "no absolute path", "/workspace"),
    ("workdir = '/a/../b'", "no absolute path", ""),
    ("workdir = '/'", "belongs to the system", ""),
    ("workdir = '/usr/app'", "belongs to the system", ""),
    ("user = 'a b'", "is no user", ""),
    ("requirements = ['gone.txt']", "'gone.txt' does not exist", ""),
    ("requirements = ['../up.txt']", "leaves the project", ""),
    ("index-url = 'host/simple'", "no address of an index", ""),
    ("labels = {'' = 'x'}", "cannot be a label", ""),
    ("snapshot = '2026-13-01'", "[snapshot]: '2026-13-01' is no date", "2026-09-01"),
    ("snapshot = 'yesterday'", "is no date", "2026-09-01T12:00:00Z"),
    ("snapshot = 2026-09-01", "[snapshot]: expected str, got date", ""),
    ("run = 'x'", "[run]: must be a list of tables", ""),
    ("run = [1]", "[run]: must be a list of tables", ""),
    ("run = [' ']", "[run[0].command]: is no command", "nltk"),
    ("run = ['true', []]", "[run[1].command]: is no command", ""),
    ("run = ['true', [1]]", "[run[1].command]: expected str", ""),
    ("run = ['true', {command = []}]", "[run[1].command]: is no command", ""),
    ("run = [{command = 'x', network = 'yes'}]", "[run[0].network]: expected bool", ""),
    ("run = [{command = 'x', after = 'build'}]", "[run[0].after]: invalid enum value 'build'", ""),
    ("run = [{command = 'x', inputs = ['../up']}]", "[run[0].inputs]: '../up' leaves the project", ""),
    ("run = [{command = 'x', inputs = ['.']}]", "is no path below the project", ""),
    ("run = [{command = 'x', secrets = ['../etc']}]", "[run[0].secrets]: '../etc' is no name", "HF_TOKEN"),
    ("run = [{command = 'x', env = {'A B' = 'c'}}]", "[run[0].env]: 'A B' is no name", ""),
    ("run = [{command = 'x', netwrok = true}]", "[run[0].netwrok]: unknown key", "'network'"),
    ("run = ['curl https://me:secret@host.example/x']", "[run[0]]: has an address with a user or password", "secrets"),
    (f"run = {['true'] * 33}", "33 commands; at most 32", "join"),
    ("build-packages = ['libpq-dev=1']", "[build-packages]: 'libpq-dev=1' is no Debian package name", "pins"),
    ("build-base = 'https://host/x'", "[build-base]: 'https://host/x' is no name of an image", "devel"),
    ("build-base = 'user:secret@host/x:1'", "[build-base]: 'host/x:1' is no name of an image", "devel"),
    ("gpu-architectures = ['sm90x']", "[gpu-architectures]: 'sm90x' is no architecture", "sm_90"),
    ("gpu-architectures = ['8']", "'8' is no architecture", "8.0"),
    ("gpu-architectures = ['8.0; rm -rf /']", "is no architecture", ""),
    ("build = 1", "[build]: expected", ""),
    ("[build]\nx = 1", "[build]: must be a table", ""),
    ("[build.x]\nenvs = {}", "[build.x.envs]: unknown key", "'env'"),
    ("[build.x]\nenv = {'A-B' = 'x'}", "[build.x.env]: 'A-B' is no name", ""),
    ("[build.x]\nconfig-settings = {'a b' = 'x'}", "'a b' is no key of a build setting", ""),
    ("[build.x]\nconfig-settings = {a = 1}", "[build.x.config-settings]: expected", ""),
    ("[build.x]\nrequires = ['!']", "[build.x.requires]: '!' is no requirement", "torch"),
    ("[build.x]\nrequires = ['x @ https://me:secret@host/x.whl']", "is no requirement", ""),
    ("[build.x]\ngpu = 'yes'", "[build.x.gpu]: expected bool", ""),
    ("[build.'../x']\ngpu = true", "'../x' is no name of a package", "flash-attn"),
    ("apt-sources = 'x'", "[apt-sources]: must be a list of tables", ""),
    ("apt-sources = ['x']", "[apt-sources]: must be a list of tables", ""),
    ("apt-sources = [{name = 'x', suite = './'}]", "[apt-sources[0]]: key is missing", ""),
]
SOURCE = {"name": "llvm", "uri": "https://apt.example/x", "suite": "s", "components": ["main"], "key": "k.asc"}
BAD_SOURCES = [
    ({"names": "x"}, "[apt-sources[0].names]: unknown key", "'name'"),
    ({"name": "LLVM"}, "[apt-sources[0].name]: 'LLVM' is no name", "lower-case"),
    ({"name": "../x"}, "[apt-sources[0].name]: '../x' is no name", ""),
    ({"uri": "https://me:secret@apt.example/x"}, "has a user or password in it", "netrc"),
    ({"uri": "ppa:x/y"}, "'ppa:x/y' is no address of an archive", ""),
    ({"suite": "a b"}, "'a b' is no suite", ""),
    ({"suite": "../../x"}, "is no suite", ""),
    ({"suite": "./"}, "[apt-sources[0].components]: does not fit the suite", "a folder has none"),
    ({"components": []}, "does not fit the suite", "main"),
    ({"components": ["../x"]}, "'../x' is no component", ""),
    ({"key": "../k.asc"}, "[apt-sources[0].key]: '../k.asc' leaves the project", ""),
    ({"key": "/etc/k.asc"}, "leaves the project", ""),
    ({"key": "gone.asc"}, "'gone.asc' does not exist", ""),
]


@pytest.mark.parametrize(("change", "message", "hint"), BAD_SOURCES, ids=[row[1] for row in BAD_SOURCES])
def test_sources_that_cannot_be(tmp_path: Path, change: dict[str, Any], message: str, hint: str) -> None:
    """The one at fault is named by its place in the list, and no password is shown."""
    (tmp_path / "k.asc").touch()
    assert checked({"apt-sources": [SOURCE]}, root=tmp_path).apt_sources[0].name == "llvm"
    with pytest.raises(ProjectError) as refused:
        checked({"apt-sources": [SOURCE | change]}, root=tmp_path)
    assert message in refused.value.message
    assert hint in (refused.value.hint or "")
    assert "secret" not in refused.value.message


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "k.asc").touch()
    with pytest.raises(ProjectError, match=r"\[apt-sources\[1\].name\]: 'llvm' stands there twice"):
        checked({"apt-sources": [SOURCE, SOURCE]}, root=tmp_path)


@pytest.mark.parametrize(("text", "message", "hint"), BAD, ids=[row[0][:30].replace("\n", " ") for row in BAD])
def test_refused(text: str, message: str, hint: str) -> None:
    """Each is a problem with file, dotted key and, where one helps, a hint."""
    with pytest.raises(ProjectError) as refused:
        settings(text)
    assert str(refused.value).startswith("mlbox.toml [")
    assert message in str(refused.value)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize("accelerator", ["cpu", "cu118", "cu126", "cu130", "rocm7.1", "rocm6.4.1"])
def test_accelerators(accelerator: str) -> None:
    """Names of builds; whether one exists, the lock finds out."""
    assert settings(f"accelerator = '{accelerator}'").accelerator == accelerator


def test_all_problems_in_one_error() -> None:
    """With the whole key as it is written in pyproject.toml."""
    with pytest.raises(ProjectError) as refused:
        settings("pythn = 1\naccelerator = 'gpu'\n[serve]\ncommand = 'x'\nprot = 1", file="pyproject.toml")
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("4 problems")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "pyproject.toml [tool.mlbox.pythn]",
        "pyproject.toml [tool.mlbox.serve.prot]",
        "pyproject.toml [tool.mlbox.accelerator]",
        "pyproject.toml [tool.mlbox.serve.port]",
    ]


def test_overrides_are_named_as_options() -> None:
    """A wrong --accelerator is not looked for in a file."""
    where = Where("mlbox.toml", ["accelerator", "extras"])
    assert [where(key) for key in ("accelerator", "extras", "python")] == [
        "--accelerator",
        "--extra",
        "mlbox.toml [python]",
    ]


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
_keys = st.sampled_from(
    ["python", "train", "serve", "tasks", "command", "port", "health", "env", "inputs", "ignore", "x"]
)
_tables = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(_keys, _tables, max_size=5))
def test_any_table_is_read_or_refused(table: dict[str, Any]) -> None:
    """Nothing but ProjectError leaves the reader, whatever the types."""
    try:
        checked(table)
    except ProjectError as problem:
        assert problem.message


@pytest.mark.parametrize("base", ["debian", "auto", "python:3.12-slim", "host:5000/a/b@sha256:" + "a" * 64])
def test_a_base_is_debian_or_an_image(base: str) -> None:
    """Any name of an image, with or without tag and digest."""
    assert checked({"base": base}).base == base


@pytest.mark.parametrize("base", ["Debian", "user:secret@host/x:1", "https://host/x", ""])
def test_what_is_no_base(base: str) -> None:
    """The error shows what was written, but never what may be a password."""
    with pytest.raises(ProjectError, match=r"\[base\]: .* is no name of an image") as refused:
        checked({"base": base})
    assert "secret" not in str(refused.value)


def test_an_exact_python_only_for_images() -> None:
    """Which 3.12.x an image has may need saying; of Debian it never does."""
    assert checked({"base": "team/base:1", "python": "3.12.4"}).python == "3.12.4"
    with pytest.raises(ProjectError, match=r"3\.12\.4"):
        checked({"python": "3.12.4"})


def test_commands_are_for_the_shell_when_they_are_strings() -> None:
    """A list is run as it is."""
    first, second, third = settings(
        """run = ["a | b", {command = "c"}, {command = ["d", "e f"], network = true}]"""
    ).run
    assert (first.command, second.command) == (("/bin/sh", "-ec", "a | b"), ("/bin/sh", "-ec", "c"))
    assert (third.command, third.network, third.after) == (("d", "e f"), True, "environment")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("8.0", "8.0"),
        ("sm_90", "9.0"),
        ("sm_90a", "9.0a"),
        ("90", "9.0"),
        ("compute_120", "12.0"),
        ("12.0+ptx", "12.0+PTX"),
    ],
)
def test_architectures_of_gpus(said: str, meant: str) -> None:
    """As PyTorch's builds write them."""
    assert settings(f"gpu-architectures = ['{said}']").gpu_architectures == (said,)
    assert architecture(said) == meant


def test_how_a_package_is_built() -> None:
    read = settings(
        "[build.flash-attn]\nenv = {A = '1'}\nrequires = ['torch']\ngpu = true\n"
        "config-settings = {x = 'y', z = ['1', '2']}"
    )
    options = read.build["flash-attn"]
    assert (options.env, options.requires, options.gpu, options.network) == ({"A": "1"}, ("torch",), True, False)
    assert config_lines(options.config_settings) == ("x=y", "z=1", "z=2")


SEVERAL = {
    "unknown": ("accelerators = ['cpu', 'gpu']", "unknown accelerator 'gpu'"),
    "path": ("accelerators = ['../cpu']", "unknown accelerator '../cpu'"),
    "twice": ("accelerators = ['cpu', 'cu126', 'cpu']", "'cpu' stands there twice"),
    "both": ("accelerator = 'cu126'\naccelerators = ['cpu']", "accelerators is there too"),
    "text": ("accelerators = 'cpu'", "expected array"),
    "extra-too": ("extras = ['cu126']\naccelerators = ['cpu', 'cu126']", "'cu126' is one of the accelerators too"),
    "index-of-none": ("accelerator-indexes = { gpu = 'https://i.invalid/whl' }", "unknown accelerator 'gpu'"),
    "index-no-address": ("accelerator-indexes = { cu126 = 'whl/cu126' }", "'whl/cu126' is no address of an index"),
    "index-no-text": ("accelerator-indexes = { cu126 = 1 }", "expected str"),
    "no-table": ("accelerator-indexes = ['https://i.invalid/whl']", "expected object"),
}


@pytest.mark.parametrize(("text", "words"), SEVERAL.values(), ids=SEVERAL)
def test_several_accelerators_are_checked(text: str, words: str) -> None:
    with pytest.raises(ProjectError) as raised:
        settings(text)
    assert words in str(raised.value)


def test_several_accelerators_and_their_indexes() -> None:
    read = settings(
        "accelerators = ['cu126', 'cpu', 'rocm7.1', 'xpu']\naccelerator-indexes = { cpu = 'https://i.invalid' }"
    )
    assert read.accelerators == ("cu126", "cpu", "rocm7.1", "xpu")
    assert read.accelerator_indexes == {"cpu": "https://i.invalid"}
