"""What says who calls and how much: keys, policies, JWKS, tokens, and the header they come in.

The first byte chooses one of `KINDS`; the rest is the file, the header, or a part of the token.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from jwt import PyJWK

from services.orchestrator.callers.api_keys import ApiKey, parse_keys
from services.orchestrator.callers.credentials import read_credential
from services.orchestrator.callers.policies import parse_policies
from services.orchestrator.callers.signing_keys import parse_signing_keys
from services.orchestrator.callers.tokens import TokenError, TokenVerifier
from services.runtime.wire.errors import RequestError
from tests.fuzz.sentences import check_sentence

MODULES = ("services.orchestrator.callers", "jwt", "tomllib")
MAX_BYTES = 2048
SECRET, KEY_ID, ISSUER, AUDIENCE = b"s" * 32, "one", "https://issuer.example", "muse"
JWKS = json.dumps(
    {
        "keys": [
            {
                "kty": "oct",
                "kid": KEY_ID,
                "alg": "HS256",
                "k": base64.urlsafe_b64encode(SECRET).decode(),
            }
        ]
    }
)


class _Keys:
    """Signing keys that are there already."""

    def __init__(self) -> None:
        self._keys = parse_signing_keys(JWKS)

    async def find(self, key_id: str) -> PyJWK | None:
        return self._keys.get(key_id)

    async def refresh(self) -> None:
        """Does nothing: the keys do not change."""


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    """Yields the check of one case."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        verifier = TokenVerifier(
            _Keys(),
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=["HS256"],
            leeway_s=0,
            caller_claim="sub",
        )

        def check_token(token: str) -> None:
            try:
                caller = loop.run_until_complete(verifier.caller(token))
            except TokenError as error:
                check_sentence(str(error))
            else:
                assert 0 < len(caller) <= 255
                assert caller.isprintable()

        kinds: tuple[Callable[[bytes], None], ...] = (
            check_keys,
            check_policies,
            check_signing_keys,
            check_header,
            lambda content: check_token(content.decode("latin-1")),
            lambda content: check_token(signed(content, claims())),
            lambda content: check_token(signed(HEADER, content)),
        )

        def check(content: bytes) -> None:
            kinds[content[0] % len(kinds) if content else 0](content[1:])

        yield check


def check_keys(content: bytes) -> None:
    """Reads a file of API keys; those found compare with now, and are written as they are read."""
    try:
        keys = parse_keys(content.decode(errors="surrogateescape"))
    except ValueError as error:
        check_sentence(str(error))
        return
    keys.policies()
    for found in keys._keys.values():
        for key in found:
            assert keys.find_digest(key.digest) is key
            if key.expires is not None:
                assert isinstance(key.expires <= datetime.now(UTC), bool)
                key.expires.isoformat()


def check_policies(content: bytes) -> None:
    """Reads a file of policies."""
    try:
        policies = parse_policies(content.decode(errors="replace"))
    except ValueError as error:
        check_sentence(str(error), longest=2 * MAX_BYTES)
        return
    assert policies.find("acme") is not None
    for policy in policies.by_name.values():
        assert policy.requests_per_minute is None or policy.requests_per_minute >= 0


def check_signing_keys(content: bytes) -> None:
    """Reads a JWKS."""
    try:
        found = parse_signing_keys(content.decode(errors="replace"))
    except ValueError as error:
        check_sentence(str(error))
    else:
        assert found


def check_header(content: bytes) -> None:
    """Reads headers `authorization`, separated by zeros."""
    headers: list[str | bytes] = list(content.split(b"\0"))
    try:
        credential = read_credential(headers)
    except RequestError as error:
        check_sentence(error.message, begins="authorization: ")
    else:
        assert credential == credential.strip() != ""


HEADER = json.dumps({"alg": "HS256", "typ": "JWT", "kid": KEY_ID}).encode()


def claims(**changes: object) -> bytes:
    """Returns good claims, some of them changed."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "iat": 1, "exp": 2**33}
    return json.dumps(good | changes).encode()


def signed(header: bytes, payload: bytes) -> str:
    """Returns a token of any bytes with a signature that is right."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    mac = hmac.digest(SECRET, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields a good one of each kind, and some that are nearly good."""
    key = ApiKey(
        caller="acme",
        digest=bytes(range(32)),
        policy="gold",
        expires=datetime(2027, 1, 31, tzinfo=UTC),
    )
    yield "keys", b"\x00# keys\n" + key.line().encode() + b"\n"
    yield (
        "policies",
        (
            b'\x01[policy.gold]\nrequests_per_minute = 9\nmax_priority = "batch"\nstatus = false\n'
            b'[callers]\nacme = "gold"\n'
        ),
    )
    yield "jwks", b"\x02" + JWKS.encode()
    yield (
        "rsa_jwks",
        (
            b'\x02{"keys":[{"kty":"RSA","kid":"a","use":"sig","n":"'
            + base64.urlsafe_b64encode(b"\xc1" * 256)
            + b'","e":"AQAB"}]}'
        ),
    )
    yield "ec_jwks", b'\x02{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AA","y":"AA"}]}'
    yield "okp_jwks", b'\x02{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AA"}]}'
    yield "header", b"\x03Bearer muse_abc"
    yield "token", b"\x04" + signed(HEADER, claims()).encode()
    yield "token_header", b"\x05" + HEADER
    yield "token_critical", b'\x05{"alg":"HS256","kid":"one","crit":["b64"],"b64":false}'
    yield "claims", b"\x06" + claims()
    yield "late_claims", b"\x06" + claims(exp=1, nbf=2**40, aud=[AUDIENCE, "x"], jti="a")
