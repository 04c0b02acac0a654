"""A distribution's archives as they were on a day, from a mirror that keeps them."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from mlbox.errors import LockError, SignatureError
from mlbox.http import redact
from mlbox.lock.debian.distributions import Distribution
from mlbox.lock.debian.release import Release
from mlbox.lock.debian.sources import Mirror, Mirrors


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the project asks for: 'YYYY-MM-DD', or with 'THH:MM:SSZ' a second of that day."""

    text: str

    @property
    def begin(self) -> datetime:
        """Its first second."""
        return datetime.fromisoformat(self.text.removesuffix("Z")).replace(tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """Its last second."""
        return self.begin if "T" in self.text else self.begin + timedelta(days=1, seconds=-1)

    def mirrors(self, distribution: Distribution, env: Mapping[str, str] = os.environ) -> Mirrors:
        """Return where the archives of `distribution` are as they were then.

        Raises LockError when no mirror of old packages is configured.
        """
        templates = env.get(distribution.snapshot, "").split()
        if not templates:
            raise LockError(
                f"the packages of {distribution.name} are to be those of {self.text}, and no mirror that keeps old ones"
                " is configured",
                hint=f"set {distribution.snapshot} to one: https://HOST/PATH/{{archive}}/{{timestamp}}",
            )
        for template in templates:
            if not ("{date}" in template or "{timestamp}" in template):
                raise LockError(
                    f"{distribution.snapshot}: {redact(template)} says nowhere which day is meant",
                    hint="write {date} (20260901) or {timestamp} (20260901T000000Z) in its place",
                )
        main, security = (
            tuple(Mirror(root=self._filled(one, archive)) for one in templates) for archive in distribution.archives
        )
        return Mirrors(main=main, security=security)

    def check(self, release: Release) -> Release:
        """Return `release`; raises SignatureError when it was made later: who ignores the day gives today's."""
        if release.date is not None and release.date > self.end:
            raise SignatureError(
                f"{redact(release.folder)}: this is {release.title} of {release.date:%Y-%m-%d %H:%M}, asked for was"
                f" that of {self.text}",
                hint="the mirror does not go back that far, or its address does not say the day",
            )
        return release

    def _filled(self, template: str, archive: str) -> str:
        told = {
            "{archive}": archive,
            "{date}": self.begin.strftime("%Y%m%d"),
            "{timestamp}": self.begin.strftime("%Y%m%dT%H%M%SZ"),
        }
        for name, value in told.items():
            template = template.replace(name, value)
        return template.rstrip("/")
