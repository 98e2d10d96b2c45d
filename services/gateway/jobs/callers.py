"""Whose jobs are whose.

The orchestrator judges a credential. What it accepts names the caller here: a JSON Web Token by its
issuer and subject, since it is renewed while a job waits; any other credential by itself.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import jwt
from muse_client import AsyncMuseClient, DeadlineExceeded, PermissionDenied, Unavailable
from starlette.requests import Request

from services.gateway.credentials import credential_of

KNOWN_S, KNOWN_CALLERS = 30.0, 10_000


@dataclass(frozen=True)
class JobCaller:
    """The caller of a request.

    Attributes:
        id: Names the caller, and gives nothing away of the credential.
        credential: The key or token; empty for none.
    """

    id: str
    credential: str


class JobCallers:
    """Names the callers of requests, once the orchestrator has accepted their credentials."""

    def __init__(self, client_of: Callable[[Request], AsyncMuseClient]) -> None:
        """Names callers.

        Args:
            client_of: Returns the client that presents a request's credential.
        """
        self._client_of = client_of
        self._accepted_s: OrderedDict[str, float] = OrderedDict()  # by digest of the credential

    async def identify(self, request: Request) -> JobCaller:
        """Returns the caller of a request.

        Raises:
            ApiError: it presents something that is no credential.
            MuseError: the orchestrator does not accept it, or cannot be reached.
        """
        client, credential = self._client_of(request), credential_of(request)
        digest = hashlib.sha256(credential.encode()).hexdigest()
        now_s = time.monotonic()
        if now_s - self._accepted_s.get(digest, -KNOWN_S) >= KNOWN_S:
            try:
                await client.status()
            except PermissionDenied:  # who calls is proved; the policy forbids to ask this
                pass
            except (Unavailable, DeadlineExceeded):  # of jobs one may ask meanwhile
                if digest not in self._accepted_s:
                    raise
            self._accepted_s[digest] = now_s
            self._accepted_s.move_to_end(digest)
            if len(self._accepted_s) > KNOWN_CALLERS:
                self._accepted_s.popitem(last=False)
        return JobCaller(_name(credential) or digest, credential)


def _name(credential: str) -> str | None:
    """Returns the name by the issuer and subject of a token; None for what is no token."""
    try:
        claims = jwt.decode(credential, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not (isinstance(issuer, str) and isinstance(subject, str)):
        return None
    return hashlib.sha256(f"token\n{issuer}\n{subject}".encode()).hexdigest()
