"""Variables that conda's packages set when their environment is activated, where they say so plainly."""

import pytest

from mlbox.build.activation import static_variables


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("#!/bin/sh\n\n# nothing\n", {}),
        ("export A=b\nB=c; \nexport B\n", {"A": "b", "B": "c"}),
        ('export A="${CONDA_PREFIX}/share/x y"', {"A": "/opt/mlbox/env/share/x y"}),
        ("export A=$CONDA_PREFIX/lib", {"A": "/opt/mlbox/env/lib"}),
        ("A='$HOME `x`'", {"A": "$HOME `x`"}),
        ("export A=", {"A": ""}),
    ],
)
def test_plain_scripts_are_read(script: str, variables: dict[str, str]) -> None:
    """Assignments, quoted as a shell reads them, and the environment's prefix."""
    assert dict(static_variables(script)) == variables


@pytest.mark.parametrize(
    "script",
    [
        "if [ -d x ]; then\nexport A=b\nfi",
        "export A=$HOME/x",
        "export A=$CONDA_PREFIX_2/x",
        "export A=`id`",
        'export A="$(id)"',
        "export A=$(id)",
        "A=b id",
        "export A=b B=c",
        "source x",
        "A=b && id",
        "A=b | id",
        "A=~/*",
        'export A="a\\"b"',
        "unset A",
        "export A=b; id",
    ],
)
def test_programs_are_not(script: str) -> None:
    """What would have to run is no list of variables."""
    with pytest.raises(ValueError, match=r"."):
        dict(static_variables(script))
