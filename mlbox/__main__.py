"""The `mlbox` program."""

import gc
import os
import signal
import sys


def main() -> None:
    """Run the command line; what needs no command line parser is answered before one is imported."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # The names of files are bytes; in another encoding the same project would give another image.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    _prepare()
    if sys.argv[1:] in (["version"], ["--version"], ["-v"], ["-V"]):
        from mlbox import __version__

        print(f"mlbox {__version__}")
        return
    gc.set_threshold(100_000, 10, 10)  # importing makes tens of thousands of objects, and nothing to collect: 3 ms
    try:
        from mlbox.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the modules were imported
        code = 130
    gc.freeze()  # else the interpreter looks through everything once more before it ends: 8 ms
    sys.exit(code)


def _prepare() -> None:
    """Be told to end like by Ctrl-C, with everything unfinished removed, and have the three standard streams."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`); the next file opened would take its number
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, "r" if fd == 0 else "w"))


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # whoever sends it again means it
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
