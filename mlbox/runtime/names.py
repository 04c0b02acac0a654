"""Names for containers whose user gave none, and the rule for those that were given."""

import os
import re

from mlbox.errors import UsageError

_ADJECTIVES = """
    amber bold brisk calm clever cosy crisp deft eager fair fleet frank fresh gentle glad golden hardy hazel humble
    jolly keen kind lively loyal lucid lucky mellow merry mild neat nimble noble patient placid plucky proud quick
    quiet rapid ready rosy sage sharp silver sleek smart snug solid spry steady stout sunny swift tidy tranquil
    trusty upbeat vivid warm wise witty zesty
"""
_NOUNS = """
    alder anchor aspen badger beacon beech birch bison brook canyon cedar comet condor coral crane dolphin dune
    eagle elm ember falcon fern finch fjord gecko glacier harbor hawk heron ibex iris island jasper juniper kestrel
    lagoon larch lark lynx maple marlin meadow meteor minnow moose orchid otter owl pebble pine plover puffin quartz
    raven reef robin sparrow spruce swan tern thistle tundra walnut willow wren yew zephyr
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def random_name() -> str:
    """Return a name that is easy to say: 'quiet-heron'."""
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    number = int.from_bytes(os.urandom(8), "big")
    return f"{adjectives[number % len(adjectives)]}-{nouns[number // len(adjectives) % len(nouns)]}"


def check_name(name: str) -> str:
    """Return `name`; raises UsageError when it could not be told from a path or an option."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"not a container name: {name[:60]!r}", hint="letters, digits, '_', '.', '-', at most 128")
    return name
