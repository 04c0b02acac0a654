"""The `mlbox` program."""

import sys


def main() -> None:
    """Run the command line; what needs no command line parser is answered before one is imported."""
    if sys.argv[1:] in (["version"], ["--version"], ["-V"]):
        from mlbox import __version__

        print(f"mlbox {__version__}")
        return
    from mlbox.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
