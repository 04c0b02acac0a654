"""Looks for bytes that a reader cannot take: `python tests/fuzz/fuzz.py TARGET SECONDS [CORPUS]`, with atheris.

What it finds lies in tests/fuzz/found/TARGET/ afterwards, and tests/unit/test_fuzz.py reads all of it from then on:
rename what is worth keeping after what it shows. atheris is no dependency: `pip install atheris`.
"""

import hashlib
import sys
import tempfile
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:1] = [str(HERE.parent), str(HERE.parent.parent)]  # instead of this folder, where "fuzz" is this file


def main() -> int:
    """Fuzz the target that the command line names."""
    import atheris

    with atheris.instrument_imports(include=["mlbox", "tomllib", "tarfile", "zipfile", "packaging"]):
        from fuzz.targets import READERS
        from fuzz.watch import check

    if len(sys.argv) not in (3, 4) or sys.argv[1] not in READERS:
        sys.exit(f"{__doc__}\ntargets: {' '.join(READERS)}")
    name, seconds = sys.argv[1:3]
    found = HERE / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    corpus = Path(sys.argv[3]) if sys.argv[3:] else Path(tempfile.mkdtemp())
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in READERS[name].seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)

    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2500", "-max_len=20000"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, f"-artifact_prefix={found}/"], partial(check, name))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
