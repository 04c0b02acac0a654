"""The mlbox program as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Program:
    """Runs mlbox in a folder with a store of its own."""

    def __init__(self, home: Path, cwd: Path, **env: str) -> None:
        self.home = home
        self.cwd = cwd
        # The tests' own tools may be configured for this machine; the locks under test must not be.
        hidden = ("PYTHONDONTWRITEBYTECODE", "SOURCE_DATE_EPOCH", "MLBOX_FIND_LINKS")
        ours = {name: value for name, value in os.environ.items() if name not in hidden}
        self.env = {**ours, "MLBOX_HOME": str(home), "PYTHONPATH": str(ROOT), **env}

    def start(self, *args: str, **options: object) -> "subprocess.Popen[bytes]":
        """Start `mlbox ARGS`."""
        argv = [sys.executable, "-m", "mlbox", *args]
        return subprocess.Popen(argv, cwd=self.cwd, env=self.env, **options)  # type: ignore[call-overload,no-any-return]

    def run(self, *args: str, code: int | None = 0, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run `mlbox ARGS` to its end; any exit code but `code` fails the test (None: any is fine)."""
        argv = [sys.executable, "-m", "mlbox", *args]
        done = subprocess.run(argv, cwd=self.cwd, env=self.env, input=stdin, capture_output=True, text=True)
        if code is not None:
            assert done.returncode == code, f"mlbox {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr, done.stderr
        return done

    def out(self, *args: str) -> str:
        """Return what `mlbox ARGS` prints on stdout, stripped."""
        return self.run(*args).stdout.strip()

    def build(self, *args: str) -> str:
        """Build and return the digest: the last line on stdout."""
        return self.out("build", *args).splitlines()[-1]
