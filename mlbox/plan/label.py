"""What the pieces of a plan are called in messages."""

from mlbox.plan.model import (
    AdditionPiece,
    AnyPiece,
    BuiltWheelPiece,
    BytecodePiece,
    CondaConfiguredPiece,
    CondaEnvPiece,
    CondaPiece,
    ConfiguredPiece,
    DebPiece,
    EnvPiece,
    ImageLayerPiece,
    ProjectPiece,
    RootfsPiece,
    RunPiece,
    WheelPiece,
)
from mlbox.plan.run import title


def label(piece: AnyPiece) -> str:
    """Return what a piece is called in messages."""
    match piece:
        case WheelPiece() | DebPiece() | CondaPiece():
            return f"{piece.name} {piece.version}"
        case BytecodePiece():
            return f"byte code of {piece.label}"
        case BuiltWheelPiece():
            return f"{piece.source.name} {piece.source.version}"
        case RootfsPiece():
            return f"root file system of Debian {piece.suite}"
        case AdditionPiece():
            return f"packages of {piece.suite} on the base"
        case ImageLayerPiece():
            return f"layer {piece.diff_id}"
        case ConfiguredPiece() | CondaConfiguredPiece():
            return f"configured {', '.join(piece.packages)}"
        case CondaEnvPiece():
            return "conda environment"
        case EnvPiece():
            return f"environment for Python {piece.python}"
        case ProjectPiece():
            return "project files"
        case RunPiece():
            return title(piece.command)
