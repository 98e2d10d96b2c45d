"""Who calls: the credential that a call brings, or the address that it comes from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal
from urllib.parse import unquote

import grpc

from services.orchestrator.callers.api_keys import KEY_PREFIX, ApiKeys
from services.orchestrator.callers.policies import Policies, Policy
from services.orchestrator.callers.tokens import TokenError, TokenVerifier
from services.orchestrator.callers.watched_file import WatchedFile
from services.runtime.server.requests import Context
from services.runtime.wire.caller import MAX_ID_LENGTH
from services.runtime.wire.errors import RequestError

HEADER = "authorization"
SCHEME = "bearer"
MAX_CREDENTIAL_LENGTH = 4096
IPV6_SITE = 64  # bits: one site has a whole such network, and may take any address of it

Kind = Literal["address", "key", "token"]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who makes a call.

    Attributes:
        id: The credential's caller; without credentials the address that the call comes from.
        kind: What proves the id.
        policy: What the caller may do.
    """

    id: str
    kind: Kind
    policy: Policy

    def shown(self, name: str) -> str:
        """Returns the caller for logs and spans, given the name in its request.

        Anyone may invent the name, so it counts only where there are no credentials.
        """
        return name if self.kind == "address" else self.id

    def fairness_id(self, name: str) -> str:
        """Returns the id that fair queueing goes by, given the name in the request."""
        whole = f"{self.id}/{name}" if name and self.policy.names_callers else self.id
        if len(whole) <= MAX_ID_LENGTH:
            return whole
        return hashlib.sha256(whole.encode()).hexdigest()


class Credentials:
    """Identifies callers: by API keys and tokens, if there are any, or else by address."""

    def __init__(
        self,
        policies: WatchedFile[Policies] | None = None,
        keys: WatchedFile[ApiKeys] | None = None,
        tokens: TokenVerifier | None = None,
    ) -> None:
        """Requires a credential of every call if there are keys, or a verifier of tokens."""
        self._policies, self._keys, self._tokens = policies, keys, tokens

    async def identify(self, context: Context) -> Identity:
        """Returns who makes a call.

        Raises:
            RequestError: UNAUTHENTICATED: the call brings no valid credential. PERMISSION_DENIED:
                the caller has a policy that is not there. UNAVAILABLE: the keys of the token issuer
                could not be fetched.
        """
        if self._keys is None and self._tokens is None:
            return self._with_policy(address_of(context.peer()), "address")
        metadata = context.invocation_metadata() or ()
        credential = read_credential([value for name, value in metadata if name == HEADER])
        if self._keys is not None and credential.startswith(KEY_PREFIX):
            key = self._keys.value.find(credential)
            if key is None:
                raise unauthenticated(
                    "the API key is unknown: mistyped, revoked, or another server's"
                )
            if key.expires is not None and key.expires <= datetime.now(UTC):
                raise unauthenticated(f"the API key expired at {key.expires.isoformat()}")
            return self._with_policy(key.caller, "key", key.policy)
        if self._tokens is None:
            raise unauthenticated(f"expected an API key, which begins with {KEY_PREFIX}")
        try:
            return self._with_policy(await self._tokens.caller(credential), "token")
        except TokenError as error:
            raise unauthenticated(f"the token proves nothing here: {error}") from None

    def _with_policy(self, caller: str, kind: Kind, named: str | None = None) -> Identity:
        policies = Policies() if self._policies is None else self._policies.value
        policy = policies.find(caller, named)
        if policy is None:
            raise RequestError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"caller {caller!r} has the policy {named!r}, which this server's file of policies "
                "does not have: its operator has to add it",
            )
        return Identity(id=caller, kind=kind, policy=policy)


def read_credential(headers: Sequence[str | bytes]) -> str:
    """Returns the credential of the `authorization` headers of a call, of which there must be one.

    Raises:
        RequestError: UNAUTHENTICATED: there is none, or another number, or it is malformed.
    """
    if not headers:
        raise unauthenticated("expected the header `authorization: Bearer KEY`, got none")
    if len(headers) > 1:
        raise unauthenticated(f"expected one header `authorization`, got {len(headers)}")
    text = headers[0] if isinstance(headers[0], str) else headers[0].decode("latin-1")
    if len(text) > MAX_CREDENTIAL_LENGTH:
        raise unauthenticated(
            f"expected a header of at most {MAX_CREDENTIAL_LENGTH} characters, got {len(text)}"
        )
    scheme, _, credential = text.partition(" ")
    if scheme.lower() != SCHEME or not credential.strip():
        raise unauthenticated("expected the header `authorization: Bearer KEY`, got another form")
    return credential.strip()


def address_of(peer: str) -> str:
    """Returns the address of a peer as gRPC writes it, such as "ipv4:10.0.0.7:4711".

    The port differs between connections of one caller, and is left out. Of an IPv6 address the
    network of the site remains, since one caller may take any address of it.
    """
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return family
    address = ip_address(rest.rpartition(":")[0].strip("[]").partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, IPV6_SITE), strict=False))
        address = address.ipv4_mapped
    return str(address)


def unauthenticated(problem: str) -> RequestError:
    """Returns the UNAUTHENTICATED error of a call; the problem repeats nothing of a secret."""
    return RequestError(grpc.StatusCode.UNAUTHENTICATED, f"{HEADER}: {problem}")
