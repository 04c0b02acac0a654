"""Whose byte code is compiled, and by which Python. Pure."""

from mlbox.lock.model import Lock
from mlbox.plan.base import home_of
from mlbox.plan.model import BuiltWheelPiece, BytecodePiece, CondaPiece, DebPiece, WheelPiece


def bytecode_piece(of: WheelPiece | BuiltWheelPiece | DebPiece | CondaPiece, lock: Lock) -> BytecodePiece:
    """Return the piece with the byte code of another."""
    return BytecodePiece(
        of=of, python=lock.target.python, interpreter=_interpreter(lock), home=home_of(lock), epoch=lock.epoch
    )


def _interpreter(lock: Lock) -> str:
    for one in lock.conda:
        if one.name == "python":
            return f"{one.filename} {one.sha256}"
    if lock.base.home:
        return f"{lock.base.home}/python{lock.target.python} of {lock.base.config}"
    name = f"python{lock.target.python}-minimal"
    version = next((deb.version for deb in lock.debs if deb.name == name), lock.target.python_full)
    return f"{name} {version}"
