"""Where mlbox keeps things."""

import os
from pathlib import Path


class Home:
    """The folder that holds one whole store; MLBOX_HOME moves it.

    content/     blobs by sha256: manifests and configurations
    artifacts/   downloaded wheels and .debs by sha256
    pieces/      unpacked artifacts
    layers/      trees by diffID, used as overlay lower directories
    containers/  one folder per container
    metadata/    what can be read again: indexes of mirrors, addresses of files, hashes of a project's files
    tmp/         everything unfinished; emptied by fsck
    mlbox.db     names, images, layers and builds (SQLite)
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content = root / "content"
        self.artifacts = root / "artifacts"
        self.pieces = root / "pieces"
        self.layers = root / "layers"
        self.containers = root / "containers"
        self.metadata = root / "metadata"
        self.tmp = root / "tmp"
        self.db = root / "mlbox.db"

    @classmethod
    def default(cls) -> "Home":
        """Return MLBOX_HOME, else /var/lib/mlbox for root, else the user's data folder."""
        if root := os.environ.get("MLBOX_HOME"):
            return cls(Path(root).absolute())
        if os.geteuid() == 0:
            return cls(Path("/var/lib/mlbox"))
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        return cls(Path(data) / "mlbox")
