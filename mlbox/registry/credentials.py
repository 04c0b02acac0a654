"""Who one is to a registry."""

from base64 import b64encode

import msgspec


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A user and password, or a token that stands for them; not shown by repr."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """Buys tokens from the registry's token server (OAuth2 refresh token)."""
    registry_token: str = ""
    """Is itself what the registry wants."""

    def __repr__(self) -> str:
        """Return a text without secrets."""
        return f"Credentials(username={self.username!r}, ***)"

    @property
    def basic(self) -> str:
        """The value of Authorization for user and password, '' without."""
        if not self.username or not self.password:
            return ""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return tuple(
            secret for secret in (self.password, self.identity_token, self.registry_token, self.basic[6:]) if secret
        )
