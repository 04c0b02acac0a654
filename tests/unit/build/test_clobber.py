"""Files that two conda packages have."""

from pathlib import Path

from mlbox.build.clobber import clobbers
from mlbox.store.pieces import StoredPiece
from mlbox.store.tree import TreeWriter

ENV = "opt/mlbox/env"


def piece(folder: Path, label: str, **files: str | bytes) -> StoredPiece:
    """An unpacked package; texts are the targets of links."""
    writer = TreeWriter(folder / label, label)
    for name, content in files.items():
        path = f"{ENV}/share/{name}"
        if isinstance(content, bytes):
            writer.file(path, [content])
        else:
            writer.symlink(path, content)
    return StoredPiece(key=label, label=label, root=folder / label, tree=writer.finish())


def test_what_differs_is_told_by_pairs(tmp_path: Path) -> None:
    """Not what is equal, nor folders; the later one counts."""
    one = piece(tmp_path, "one 1", same=b"x", other=b"abc", size=b"1", link="same", kind=b"k", only=b"1")
    two = piece(tmp_path, "two 2", same=b"x", other=b"abd", size=b"12", link="same", kind="same")
    three = piece(tmp_path, "three 3", other=b"abd", link="other")
    found = clobbers([one, two, three])
    assert [(each.earlier, each.later, each.paths) for each in found] == [
        ("one 1", "two 2", ("share/kind", "share/other", "share/size")),
        ("two 2", "three 3", ("share/link",)),
    ]
    assert found[0].message == (
        "conda packages one 1 and two 2 have different files at share/kind and 2 more; the image has those of two 2"
    )
