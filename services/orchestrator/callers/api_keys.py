"""API keys: random secrets that callers present, and the file of their digests.

A key is 256 random bits, so its SHA-256 is enough in the file: there is no dictionary of likely
keys to try, as there is of passwords, and a slow hash would only slow down every call.
"""

import hashlib
import hmac
import json
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

KEY_PREFIX = "muse_"  # so that people and scanners of secrets recognise a key
KEY_BYTES = 32
MAX_CALLER_LENGTH = 255  # what OpenID Connect allows a subject
FIELDS = ("caller", "sha256", "policy", "expires")
_INDEX_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key.

    Attributes:
        caller: Id of the caller; several keys may name one, so that a key can be replaced.
        digest: SHA-256 of the key.
        policy: Name of the caller's policy; None for the one that the file of policies names.
        expires: Time from which on the key is refused; None for never.
    """

    caller: str
    digest: bytes = field(repr=False)
    policy: str | None = None
    expires: datetime | None = None

    def line(self) -> str:
        """Returns the line of the file of keys."""
        fields: dict[str, str] = {"caller": self.caller, "sha256": self.digest.hex()}
        if self.policy is not None:
            fields["policy"] = self.policy
        if self.expires is not None:
            fields["expires"] = self.expires.isoformat()
        return json.dumps(fields)


def new_key() -> str:
    """Returns a new random key."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str) -> bytes:
    """Returns what the file of keys holds in place of a key."""
    return hashlib.sha256(key.encode()).digest()


class ApiKeys:
    """The keys of a file."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        """Indexes the keys.

        Raises:
            ValueError: a key is there twice.
        """
        self._keys: dict[bytes, list[ApiKey]] = defaultdict(list)
        for key in keys:
            if self.find_digest(key.digest) is not None:
                raise ValueError(f"expected each key once, got one of {key.caller!r} again")
            self._keys[key.digest[:_INDEX_BYTES]].append(key)

    def find(self, key: str) -> ApiKey | None:
        """Returns what is known of a key; None if it is unknown."""
        return self.find_digest(digest_of(key))

    def find_digest(self, digest: bytes) -> ApiKey | None:
        """Returns the key of a digest.

        The digests are compared in constant time but for their first bytes. Those may show in the
        time that a look-up takes, and say nothing of a key that has 256 random bits.
        """
        candidates = self._keys.get(digest[:_INDEX_BYTES], ())
        matching = [each for each in candidates if hmac.compare_digest(each.digest, digest)]
        return matching[0] if matching else None

    def policies(self) -> set[str]:
        """Returns the names of all policies that keys name."""
        keys = (key for found in self._keys.values() for key in found)
        return {key.policy for key in keys if key.policy is not None}


def parse_keys(text: str) -> ApiKeys:
    """Parses a file of keys: a JSON object a line; empty lines and lines with # are skipped.

    Raises:
        ValueError: a line is no key; the message has its number and none of its content.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(_parse_line(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return ApiKeys(keys)


def check_caller(caller: object) -> str:
    """Returns the id of a caller.

    Raises:
        ValueError: it is no text of 1 to 255 printable characters.
    """
    if not isinstance(caller, str) or not 0 < len(caller) <= MAX_CALLER_LENGTH:
        raise ValueError(f"expected a caller of 1 to {MAX_CALLER_LENGTH} characters")
    if not caller.isprintable():
        raise ValueError("expected a caller of printable characters")
    return caller


def parse_expiry(text: object) -> datetime:
    """Returns a time of ISO 8601; midnight in UTC, if it is a date.

    Raises:
        ValueError: it is no time, or a time of day without a zone.
    """
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        time = None
    if time is not None and time.tzinfo is None and len(str(text)) == len("2027-01-31"):
        time = time.replace(tzinfo=UTC)
    if time is None or time.tzinfo is None:
        raise ValueError("expires: expected such as 2027-01-31 or 2027-01-31T12:00:00Z")
    return time


def _parse_line(line: str) -> ApiKey:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not set(fields) <= set(FIELDS):
        raise ValueError(f"expected a JSON object with some of {', '.join(FIELDS)}")
    try:
        digest = bytes.fromhex(fields.get("sha256", ""))
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("sha256: expected 64 hexadecimal digits, as `muse keys new` prints them")
    policy = fields.get("policy")
    if policy is not None and not isinstance(policy, str):
        raise ValueError("policy: expected a name")
    return ApiKey(
        caller=check_caller(fields.get("caller")),
        digest=digest,
        policy=policy,
        expires=parse_expiry(fields["expires"]) if "expires" in fields else None,
    )
