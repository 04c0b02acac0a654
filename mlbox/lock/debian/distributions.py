"""The distributions made of .debs that are known: which releases, archives, mirrors and keys are whose. One table."""

from collections.abc import Mapping, Sequence

import msgspec

_SECURITY = ("-security", "/updates")


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What a release has kept since it was made; the full versions only guess what its updates have by now."""

    python: str
    python_full: str
    glibc: str


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution, and how its archives are told from those of others."""

    name: str
    """What people call it, and its signed metadata say it is of (Origin): 'Debian'."""
    id: str
    """In os-release(5), in package URLs and in the file names of its keyrings."""
    suite_field: str
    """The field of its signed metadata that tells a release's updates from the release: 'codename'."""
    components: tuple[str, ...]
    """The parts of its archives that packages are taken from."""
    releases: Mapping[str, Series]
    codenames: frozenset[str]
    """Of all its releases: sources of apt that name one are its mirrors."""
    keyring: str
    """The package that has its keys."""
    mirror: str
    """The setting that names its mirrors."""
    security_mirror: str
    snapshot: str
    """The setting that says where its archives are as they were on a day."""
    archives: tuple[str, str]
    """What its archive and that of its security updates are called there."""
    ports_mirror: str = ""
    """The setting that names those for other machines than amd64; empty when the same mirrors have all."""

    @property
    def archs(self) -> tuple[str, ...]:
        """The machines whose packages lie on mirrors of their own; '' when every mirror has all."""
        return ("amd64", "arm64") if self.ports_mirror else ("",)

    def owns(self, release: str, components: Sequence[str]) -> bool:
        """Return whether a source of apt for `release` seems to be a mirror of it; the signed metadata decide."""
        if release in self.codenames:
            return "main" in components
        # A release newer than this table is still known by a component that nobody else has.
        return any(component in self.components[1:] for component in components)


DEBIAN = Distribution(
    name="Debian",
    id="debian",
    suite_field="codename",
    components=("main",),
    releases={
        "bullseye": Series(python="3.9", python_full="3.9.2", glibc="2.31"),
        "bookworm": Series(python="3.11", python_full="3.11.2", glibc="2.36"),
        "trixie": Series(python="3.13", python_full="3.13.5", glibc="2.41"),
    },
    codenames=frozenset(
        {"stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid"}
        | {"stable", "oldstable", "oldoldstable", "testing", "unstable", "experimental"}
    ),
    keyring="debian-archive-keyring",
    mirror="MLBOX_DEBIAN_MIRROR",
    security_mirror="MLBOX_DEBIAN_SECURITY_MIRROR",
    snapshot="MLBOX_DEBIAN_SNAPSHOT",
    archives=("debian", "debian-security"),
)

UBUNTU = Distribution(
    name="Ubuntu",
    id="ubuntu",
    suite_field="suite",  # its codename is the release's in all of them
    components=("main", "universe"),
    releases={
        "jammy": Series(python="3.10", python_full="3.10.12", glibc="2.35"),
        "noble": Series(python="3.12", python_full="3.12.3", glibc="2.39"),
    },
    codenames=frozenset(
        {"trusty", "xenial", "bionic", "focal", "jammy", "mantic", "noble", "oracular", "plucky", "questing", "devel"}
    ),
    keyring="ubuntu-keyring",
    mirror="MLBOX_UBUNTU_MIRROR",
    security_mirror="MLBOX_UBUNTU_SECURITY_MIRROR",
    snapshot="MLBOX_UBUNTU_SNAPSHOT",
    archives=("ubuntu", "ubuntu"),
    ports_mirror="MLBOX_UBUNTU_PORTS_MIRROR",
)

RELEASES = {release: series.python for release, series in DEBIAN.releases.items()}
"""The Python of each Debian release that mlbox can assemble a base of."""
PYTHON_FULL = {release: series.python_full for release, series in DEBIAN.releases.items()}
GLIBC = {release: series.glibc for release, series in DEBIAN.releases.items()}

KNOWN = " or ".join(f"{one.name} {', '.join(one.releases)}" for one in (DEBIAN, UBUNTU))
"""The releases whose packages can be added to an image, for messages."""


def distribution_of(suite: str) -> Distribution:
    """Return the distribution that `suite` ('noble-updates') is of: Debian unless it is known to be another's."""
    return UBUNTU if suite.partition("-")[0] in UBUNTU.releases else DEBIAN


def series_of(suite: str) -> Series | None:
    """Return what the release that `suite` is of has; None when it is none whose packages can be added."""
    return distribution_of(suite).releases.get(suite.partition("-")[0])


def is_security(suite: str) -> bool:
    """Return whether `suite` is the one with the security updates of its release."""
    return suite.endswith(_SECURITY[0]) or _SECURITY[1] in suite
