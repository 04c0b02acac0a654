"""What to say about a command that there is not: the one that was meant, or what there is in its place."""

from difflib import get_close_matches

from mlbox.cli.main import COMMANDS
from mlbox.errors import UsageError

_OTHERWISE = {
    "attach": "'mlbox logs -f' shows what it prints, 'mlbox exec -it' opens a shell in it",
    "container": "ps, logs, exec, start, stop, kill, wait, rm and inspect stand for themselves: 'mlbox ps'",
    "image": "images, rmi, tag, history, inspect and prune stand for themselves: 'mlbox images'",
    "info": "mlbox doctor",
    "install": "name it among the project's requirements; 'mlbox build --relock' takes it in",
    "ls": "'mlbox images' lists images, 'mlbox ps' containers",
    "restart": "mlbox stop, then mlbox start",
    "search": "'mlbox tags REPO' lists what a repository has",
    "system": "df, prune and doctor stand for themselves: 'mlbox df'",
    "top": "'mlbox exec NAME ps' shows its processes, 'mlbox gpu top' who computes on which GPU",
}
"""What other programs call commands that mlbox has in another form."""
_MISSING = {
    "compose": "'mlbox serve' runs one service of a project, 'mlbox run -d' any image",
    "network": "containers have --network host, the default, or none",
    "volume": "-v /folder:/in/the/container mounts a folder of this host",
}
"""What is not in this version, and what helps for now."""


def unknown(name: str) -> UsageError:
    """Return the error about the command `name`, which there is not."""
    if name in _MISSING:
        return UsageError(f"'{name}' is not in this version of mlbox", hint=_MISSING[name])
    close = " or ".join(f"'mlbox {one}'" for one in get_close_matches(name, COMMANDS, n=2))
    hint = _OTHERWISE.get(name) or (f"did you mean {close}?" if close else "'mlbox -h' lists all")
    return UsageError(f"no command {name[:100]!r}", hint=hint)
