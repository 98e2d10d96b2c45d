"""The public keys of a token issuer: a JWKS file, or a JWKS URL that is fetched off the event loop.

Source: RFC 7517, "JSON Web Key (JWK)".
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from jwt import PyJWK, PyJWKClient
from jwt.exceptions import PyJWTError
from muse_client.addresses import is_loopback

from services.orchestrator.callers.watched_file import WatchedFile
from services.runtime.wire.errors import unavailable

logger = logging.getLogger(__name__)
FETCH_TIMEOUT_S = 5.0
REFRESH_S = 300.0
COOLDOWN_S = 10.0  # between fetches for unknown keys, whose ids anyone may invent

KeysById = Mapping[str, PyJWK]


class SigningKeys(Protocol):
    """The keys that sign the tokens of an issuer."""

    async def find(self, key_id: str) -> PyJWK | None:
        """Returns the key of an id; None if the issuer has none."""

    async def refresh(self) -> None:
        """Reads the keys again if it is time to; problems are logged, and the keys stay."""


class SigningKeysFile:
    """The keys of a JWKS file."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            ValueError: the file cannot be read, or has no key.
        """
        self._file = WatchedFile(path, parse_signing_keys)

    async def find(self, key_id: str) -> PyJWK | None:
        """Returns the key of an id; None if the file has none."""
        return self._file.value.get(key_id)

    async def refresh(self) -> None:
        """Reads the file again if it changed."""
        await asyncio.to_thread(self._file.refresh)


class FetchedSigningKeys:
    """The keys of a JWKS URL; the last ones that were fetched, if the issuer does not answer."""

    def __init__(self, url: str) -> None:
        """Fetches nothing yet, so that a server starts while its issuer is away."""
        # It follows no redirect, and its own cache, which would block the callers, is off.
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_TIMEOUT_S)
        self._host = urlsplit(url).hostname  # for logs: a URL may hold a password
        self._keys: KeysById | None = None
        self._tried_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._failed = False

    async def find(self, key_id: str) -> PyJWK | None:
        """Returns the key of an id; an unknown id has the keys fetched, once in `COOLDOWN_S`.

        Raises:
            RequestError: UNAVAILABLE: no keys were ever fetched.
        """
        known = self._keys is not None and key_id in self._keys
        if not known and time.monotonic() - self._tried_s >= COOLDOWN_S:
            await self._fetch()
        elif not known and self._fetching is not None:
            await asyncio.shield(self._fetching)
        if self._keys is None:
            raise unavailable(
                "the keys of the token issuer could not be fetched; try again",
                retry_after_s=COOLDOWN_S,
            )
        return self._keys.get(key_id)

    async def refresh(self) -> None:
        """Fetches the keys if `REFRESH_S` went by, or at once if there are none yet."""
        wait_s = COOLDOWN_S if self._keys is None or self._failed else REFRESH_S
        if time.monotonic() - self._tried_s >= wait_s:
            await self._fetch()

    async def _fetch(self) -> None:
        """Fetches the keys in a thread; calls at the same time wait for one fetch."""
        if self._fetching is None:
            self._tried_s = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch_once())
        await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        try:
            found = signing_keys_of(await asyncio.to_thread(self._client.fetch_data))
        except (PyJWTError, OSError, ValueError, RecursionError) as error:
            if not self._failed:
                logger.error("the keys of %s could not be fetched: %s", self._host, error)
            self._failed = True
        else:
            if self._failed or self._keys is None:
                logger.info("the keys of %s were fetched", self._host)
            self._keys, self._failed = found, False
        finally:
            self._fetching = None


def open_signing_keys(location: str) -> SigningKeys:
    """Opens the keys of a JWKS URL or file.

    Raises:
        ValueError: the file cannot be used, or the URL would fetch keys that anyone on the way may
            replace.
    """
    parts = urlsplit(location)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return FetchedSigningKeys(location)
    if "://" in location:
        raise ValueError(
            f"jwt_jwks: expected an https:// URL (http:// on this machine alone) or a file, got "
            f"{parts.scheme}://{parts.hostname}"
        )
    return SigningKeysFile(Path(location))


def parse_signing_keys(text: str) -> KeysById:
    """Parses a JWKS file.

    Raises:
        ValueError: it is no JWKS, or has no key that is for signatures and has an id.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    return signing_keys_of(content)


def signing_keys_of(content: Any) -> KeysById:
    """Returns the keys of a JWKS that are for signatures and have an id; others are skipped.

    Args:
        content: The JWKS, of the types of JSON.

    Raises:
        ValueError: it is no JWKS, or has no such key.
    """
    members = content.get("keys") if isinstance(content, dict) else None
    keys = [_key_of(each) for each in members] if isinstance(members, list) else []
    found = {str(key.key_id): key for key in keys if key is not None}
    if not found:
        raise ValueError("expected a JWKS with a public key for signatures that has a kid")
    return found


def _key_of(member: Any) -> PyJWK | None:
    """Returns a key that can be used; None for any other member of a JWKS."""
    try:
        key = PyJWK(member)
    # PyJWT lets out what a member without the fields of its type makes its parts raise.
    except (PyJWTError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    usable = key.public_key_use in ("sig", None) and isinstance(key.key_id, str) and key.key_id
    return key if usable else None
