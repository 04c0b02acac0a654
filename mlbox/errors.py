"""The exceptions mlbox raises.

    MlboxError              something mlbox was asked for could not be done; exit code 1
    +-- UsageError          the command line or its combination is wrong; exit code 2
    +-- NotFoundError       a name that does not exist in the store
    +-- ProjectError        a file of the user's repository cannot be read or contradicts itself
    +-- LockError           the lock is missing, stale, damaged, or does not fit
    |   +-- ResolveError    no set of versions satisfies the requirements
    |   +-- SignatureError  metadata from a mirror is not signed by a trusted key
    +-- FetchError          a file could not be had from an index or mirror
    +-- RegistryError       an image registry refused, failed or answered nonsense
    +-- ArchiveError        a wheel, .deb or tar is damaged or hostile
    +-- BuildError          a build step failed
    |   +-- LackingError    what was built needs libraries that the image lacks
    +-- StoreError          the store is damaged or cannot be written
    +-- ContainerError      a container could not be created, started or controlled; exit code 125
    +-- TrustError          a key, a signature or a policy stands in the way
    +-- ProcessError        a program that mlbox started failed

The library raises, the command line prints: nothing below mlbox.cli calls print or exits.
"""


class MlboxError(Exception):
    """What happened, to which file, package or step; `hint` says what mends it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MlboxError):
    """The command line is wrong."""

    exit_code = 2


class NotFoundError(MlboxError):
    """No image, container or layer of that name."""


class ProjectError(MlboxError):
    """A file of the user's repository is unreadable or contradicts itself."""


class LockError(MlboxError):
    """The lock is missing, stale, damaged or does not fit."""


class ResolveError(LockError):
    """No set of versions satisfies the requirements."""


class SignatureError(LockError):
    """Metadata is not signed by a trusted key, or was changed after signing."""


class FetchError(MlboxError):
    """A file could not be had from an index or mirror."""


class RegistryError(MlboxError):
    """A registry refused, failed or answered nonsense; `status` is that of its answer, 0 when there was none."""

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ArchiveError(MlboxError):
    """A wheel, .deb or tar is damaged or tries to leave its place."""


class BuildError(MlboxError):
    """A build step failed."""


class LackingError(BuildError):
    """What was built needs libraries that the image lacks; `packages` are the Debian packages that have them."""

    def __init__(self, message: str, *, packages: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.packages = packages


class StoreError(MlboxError):
    """The store is damaged or cannot be written."""


class ContainerError(MlboxError):
    """A container could not be created, started or controlled."""

    exit_code = 125


class TrustError(MlboxError):
    """A key cannot be used, a signature is missing or wrong, or a policy forbids it."""


class ProcessError(MlboxError):
    """A program that mlbox started failed."""

    def __init__(self, message: str, *, returncode: int, stderr: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.stderr = stderr
