"""The `mlbox` program."""

import os
import sys


def main() -> None:
    """Run the command line; what needs no command line parser is answered before one is imported."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # The names of files are bytes; in another encoding the same project would give another image.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    if sys.argv[1:] in (["version"], ["--version"], ["-V"]):
        from mlbox import __version__

        print(f"mlbox {__version__}")
        return
    from mlbox.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
