"""JSON Web Tokens: signed statements of an issuer about who calls.

Source: RFC 7519, "JSON Web Token (JWT)"; RFC 8725, "JSON Web Token Best Current Practices".
"""

from collections.abc import Collection
from typing import Any

import jwt
from jwt import PyJWK
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from services.orchestrator.callers.api_keys import check_caller
from services.orchestrator.callers.signing_keys import SigningKeys


class TokenError(Exception):
    """A token that proves nothing; the message says why, and repeats nothing of it."""


class TokenVerifier:
    """Checks tokens of one issuer for one audience."""

    def __init__(
        self,
        keys: SigningKeys,
        *,
        issuer: str,
        audience: str,
        algorithms: Collection[str],
        leeway_s: float,
        caller_claim: str,
    ) -> None:
        """Checks nothing yet.

        Args:
            keys: Keys of the issuer.
            issuer: The claim `iss`.
            audience: The claim `aud`, or one of its values.
            algorithms: Algorithms that signatures may have.
            leeway_s: How far the clocks of issuer and server may differ.
            caller_claim: Claim that is the caller's id.
        """
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._algorithms, self._leeway_s = tuple(algorithms), leeway_s
        self._caller_claim = caller_claim

    async def caller(self, token: str) -> str:
        """Returns the id of the caller that a token names.

        Raises:
            TokenError: the token is malformed, or proves nothing to this server.
            RequestError: UNAVAILABLE: the issuer's keys could not be fetched.
        """
        key = await self._key(token)
        claims = self._claims(token, key)
        try:
            return check_caller(claims[self._caller_claim])
        except ValueError as error:
            raise TokenError(f"its claim {self._caller_claim!r} is no caller: {error}") from None

    async def _key(self, token: str) -> PyJWK:
        """Returns the key that a token's header names, if its algorithm is allowed."""
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, RecursionError):
            raise TokenError("it is malformed") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            allowed = ", ".join(sorted(self._algorithms))
            raise TokenError(f"its algorithm is not allowed; expected one of {allowed}")
        if not isinstance(key_id, str) or not key_id:
            raise TokenError("its header has no key id (kid)")
        key = await self._keys.find(key_id)
        if key is None:
            raise TokenError("its issuer has no key of its key id (kid)")
        if key.algorithm_name != algorithm:  # the key decides, never the token
            raise TokenError("its algorithm is not the one of its key")
        return key

    def _claims(self, token: str, key: PyJWK) -> dict[str, Any]:
        required = ["exp", "iss", "aud", self._caller_claim]
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_s,
                options={"require": required},
            )
        except InvalidSignatureError:
            problem = "its signature is not the issuer's"
        except ExpiredSignatureError:
            problem = "it has expired"
        except ImmatureSignatureError:
            problem = "it is not yet valid"
        except InvalidAudienceError:
            problem = f"it is for another audience; expected {self._audience!r}"
        except InvalidIssuerError:
            problem = f"it is of another issuer; expected {self._issuer!r}"
        except MissingRequiredClaimError as error:
            problem = f"its claim {error.claim!r} is missing"
        except (PyJWTError, ValueError, RecursionError):
            problem = "it is malformed"
        raise TokenError(problem)
