"""Whose each file of an image is, as the image itself says."""

import pytest
from fakes.images import SITE, debs, make_image, wheel

from mlbox.errors import StoreError
from mlbox.oci.layer import Entry, Kind
from mlbox.report.contents import contents_of
from mlbox.report.installed import Owner, read_database
from mlbox.store.store import Store
from mlbox.store.view import effective


def owners(store: Store, **layers: dict[str, bytes | str | int]) -> dict[str, str]:
    image = make_image(store, layers)
    return {place.entry.path: owner.label for owner, place in contents_of(store, image).held()}


def test_every_file_has_an_owner(store: Store) -> None:
    """dpkg's lists, RECORD, the working directory, and what is left belongs to its layer."""
    base = debs(("libc6", "2.36", "", {"usr/lib/libc.so": b"c"}))
    found = owners(
        store,
        base={**base, "etc/made": b"x"},
        env={**wheel("Num_Py", "2.0", num_py__core=b"n")},
        project={"workspace/train.py": b"t", "workspace/link": "train.py"},
    )

    assert found["usr/lib/libc.so"] == "libc6 2.36"
    assert found["var/lib/dpkg/info/libc6.list"] == "libc6 2.36"
    assert found["etc/made"] == "base"
    assert found[f"{SITE}/num_py/core"] == "num-py 2.0"
    assert found[f"{SITE}/Num_Py-2.0.dist-info/RECORD"] == "num-py 2.0"
    assert (found["workspace/train.py"], found["workspace/link"]) == ("project", "project")


def test_byte_code_belongs_to_the_source(store: Store) -> None:
    files = wheel("a", a__b=b"")
    files[f"{SITE}/a/b.py"] = b""
    files[f"{SITE}/a-1.0.dist-info/RECORD"] += b"a/b.py,,\n"

    found = owners(store, env=files, code={f"{SITE}/a/__pycache__/b.cpython-311.pyc": b"x"})

    assert found[f"{SITE}/a/__pycache__/b.cpython-311.pyc"] == "a 1.0"


def test_lists_from_before_the_merge_of_usr(store: Store) -> None:
    """A list that says /bin/dash means usr/bin/dash where /bin is a link."""
    files = debs(("dash", "0.5", "", {"bin/dash": b"d"}))
    files["usr/bin/dash"] = files.pop("bin/dash")

    assert owners(store, base={**files, "bin": "usr/bin"})["usr/bin/dash"] == "dash 0.5"


def test_records_with_quotes_and_ways_out(store: Store) -> None:
    """Paths with commas are quoted; scripts are recorded relative to site-packages; nonsense is left alone."""
    record = b'"odd,name.py",,\n../../../bin/tool,sha256=x,3\n/etc/absolute,,\n\n,,\n"' + b"x" * 200_000 + b'",,\n'
    files = {f"{SITE}/a-1.dist-info/METADATA": b"Name: a\nVersion: 1\n", f"{SITE}/a-1.dist-info/RECORD": record}
    files |= {f"{SITE}/odd,name.py": b"", "opt/mlbox/env/bin/tool": b"", "etc/absolute": b""}

    found = owners(store, env=files)

    assert {path for path, owner in found.items() if owner == "a 1"} == files.keys()


def test_a_python_package_of_debian_is_debians(store: Store) -> None:
    own = "usr/lib/python3/dist-packages/six-1.dist-info/METADATA"
    files = debs(("python3-six", "1.16", "", {own: b"Name: six\nVersion: 1\n"}))

    image = make_image(store, {"base": files})

    assert [one.owner.label for one in contents_of(store, image).database.packages] == ["python3-six 1.16"]


def test_dependencies_are_settled_among_what_is_there() -> None:
    """Alternatives, virtual packages and versions in Debian; markers and extras in Python."""
    status = (
        b"Package: a\nVersion: 1\nEssential: yes\nPre-Depends: b (>= 2)\n"
        b"Depends: missing | mailer, c:any [amd64],\n d\n\n"
        b"Package: b\nVersion: 2\nProvides: mailer (= 2), other\n\nPackage: c\n\n"
    )
    meta = b"Name: P\nVersion: 1\nRequires-Dist: Q.q[x]>=1 ; python_version > '3'\nRequires-Dist: R; extra == 'x'\n\nx"
    files = {
        "var/lib/dpkg/status": status,
        "s/P-1.dist-info/METADATA": meta,
        "s/q_q-1.dist-info/METADATA": b"Name: q-q\nVersion: 1\n",
        "s/r-1.dist-info/METADATA": b"Name: r\nVersion: 1\n",
    }

    found = read_database(files, lambda path: files.get(path, b""), {})

    assert {one.owner.name: one.requires for one in found.packages} == {
        "a": ("b", "c"),
        "b": (),
        "c": (),
        "p": ("q-q",),
        "q-q": (),
        "r": (),
    }
    assert [one.owner.name for one in found.packages if one.essential] == ["a"]
    assert found.owner("s/P-1.dist-info/RECORD") == Owner("python", "p", "1")


def entries(*paths: str) -> list[Entry]:
    """Return entries: 'a/' is a folder, 'a/!' an opaque one, '-a' a whiteout of a."""
    found = []
    for path in paths:
        kind: Kind = "dir" if path.endswith(("/", "/!")) else "whiteout" if path.startswith("-") else "file"
        found.append(Entry(path.strip("-").rstrip("/!"), kind, 0o644, opaque=path.endswith("!")))
    return found


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        (("-a/x",), {"a", "a/y", "a/d", "a/d/z"}),
        (("-a/d",), {"a", "a/x", "a/y"}),
        (("a/!", "a/new"), {"a", "a/new"}),
        (("a/d/!",), {"a", "a/x", "a/y", "a/d"}),
        (("a/d",), {"a", "a/x", "a/y", "a/d"}),
        (("-a",), set()),
        (("a/not.wh.x", "a/.wh.y"), {"a", "a/x", "a/y", "a/d", "a/d/z", "a/not.wh.x", "a/.wh.y"}),
    ],
)
def test_what_upper_layers_hide(upper: tuple[str, ...], left: set[str]) -> None:
    """Whiteouts, opaque folders, and a file where a folder was."""
    assert set(effective([entries("a/", "a/x", "a/y", "a/d/", "a/d/z"), entries(*upper)])) == left


def test_what_is_hidden_may_come_back() -> None:
    found = effective([entries("a/", "a/x"), entries("-a/x"), entries("a/", "a/x")])

    assert found["a/x"].layer == 2


def test_many_whiteouts_take_no_time() -> None:
    """Hostile layers may hold as many as they like: the work grows with their number, not with its square."""
    lower = entries(*(f"d/{number}" for number in range(20_000)))
    upper = entries(*(f"-d/{number}" for number in range(20_000)))

    assert not effective([lower, upper])


def test_a_missing_layer_is_said(store: Store) -> None:
    image = make_image(store, {"one": {"a": b"1"}})
    store.layers.delete(image.config.rootfs.diff_ids[0])

    with pytest.raises(StoreError, match="missing"):
        contents_of(store, image)


def test_a_database_that_became_a_link_is_not_followed(store: Store, tmp_path: object) -> None:
    """What lies on the disk may have been changed: nothing outside the layer is read."""
    image = make_image(store, {"base": debs(("a", "1", "", {}))})
    path = store.layers.root(image.config.rootfs.diff_ids[0]) / "var/lib/dpkg/status"
    path.unlink()
    path.symlink_to("/etc/passwd")

    with pytest.raises(StoreError, match="cannot be read"):
        contents_of(store, image)


def test_conda_packages_own_their_files() -> None:
    """Also the distributions in them; what pip put beside them is pip's. A damaged record counts for nothing."""
    site = "opt/env/lib/python3.11/site-packages"
    record = (
        b'{"name": "numpy", "version": "2.0", "depends": ["python >=3.11", "__glibc"],'
        b' "files": ["lib/python3.11/site-packages/numpy-2.0.dist-info/METADATA", "../../etc/x"]}'
    )
    files = {
        "opt/env/conda-meta/numpy-2.0-0.json": record,
        "opt/env/conda-meta/python-3.11-0.json": b'{"name": "python", "version": "3.11"}',
        "opt/env/conda-meta/broken-1-0.json": b"[",
        f"{site}/numpy-2.0.dist-info/METADATA": b"Name: numpy\nVersion: 2.0\n\n",
        f"{site}/six-1.0.dist-info/METADATA": b"Name: six\nVersion: 1.0\n\n",
    }
    database = read_database(files, lambda path: files.get(path, b""), {})
    numpy = Owner("conda", "numpy", "2.0")
    assert database.owner(f"{site}/numpy-2.0.dist-info/METADATA") == numpy
    assert database.owner("opt/env/conda-meta/numpy-2.0-0.json") == numpy
    assert [(one.owner.kind, one.owner.name, one.requires) for one in database.packages] == [
        ("conda", "numpy", ("python",)),
        ("conda", "python", ()),
        ("python", "six", ()),
    ]
