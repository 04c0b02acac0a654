"""Where policies lie. Apart from what they mean, so that a machine without one pays for a stat and nothing more."""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM = Path("/etc/mlbox/policy.toml")


def files_of(environ: Mapping[str, str], system: Path = SYSTEM) -> tuple[Path, Path]:
    """Return the policy of the machine and that of the user: MLBOX_POLICY, else in the configuration folder."""
    if named := environ.get("MLBOX_POLICY"):
        return system, Path(named).absolute()
    folder = environ.get("XDG_CONFIG_HOME")
    config = Path(folder) if folder else Path(environ.get("HOME") or Path.home()) / ".config"
    return system, config / "mlbox" / "policy.toml"


def is_any(environ: Mapping[str, str], system: Path = SYSTEM) -> bool:
    """Whether a policy has to be read; a file of which that cannot be said counts as one."""
    return bool(environ.get("MLBOX_POLICY")) or any(not _is_missing(path) for path in files_of(environ, system))


def _is_missing(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
