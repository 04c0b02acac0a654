"""HTTP: bounded, retried, resumed, verified, and without a credential in any message.

`url` takes addresses apart, `pool` makes connections (proxies, certificates), `transport` opens and retries requests,
`part` is a download under way, and `client` is what indexes and mirrors are read with.
"""

from mlbox.http.client import Answer, Http
from mlbox.http.pool import ca_bundle
from mlbox.http.transport import LIMITS, HttpError, Limits
from mlbox.http.url import file_path, is_offline, redact, redact_text, without_credentials

__all__ = [
    "LIMITS",
    "Answer",
    "Http",
    "HttpError",
    "Limits",
    "ca_bundle",
    "file_path",
    "is_offline",
    "redact",
    "redact_text",
    "without_credentials",
]
