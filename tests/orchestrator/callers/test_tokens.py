"""Tokens: one issuer, one audience, its own keys and algorithms; anything else proves nothing."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.orchestrator.callers import signing_keys
from services.orchestrator.callers.signing_keys import (
    FetchedSigningKeys,
    SigningKeysFile,
    open_signing_keys,
)
from services.orchestrator.callers.tokens import TokenError, TokenVerifier
from services.runtime.wire.errors import RequestError
from tests.orchestrator.callers.issuing import (
    AUDIENCE,
    ISSUER,
    forged,
    jwks,
    public_jwk,
    public_pem,
    served,
    token,
)


def verifier_of(keys: Any, **changes: Any) -> TokenVerifier:
    settings = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ("RS256", "ES256", "EdDSA"),
        "leeway_s": 0.0,
        "caller_claim": "sub",
    }
    return TokenVerifier(keys, **{**settings, **changes})


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeysFile:
    path = tmp_path / "jwks.json"
    path.write_text(jwks())
    return SigningKeysFile(path)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_good_token_names_its_caller(keys: SigningKeysFile, algorithm: str) -> None:
    verifier = verifier_of(keys)
    assert await verifier.caller(token(algorithm)) == "acme"
    assert await verifier.caller(token(algorithm, aud=["other", AUDIENCE])) == "acme"


async def test_another_claim_may_be_the_caller(keys: SigningKeysFile) -> None:
    verifier = verifier_of(keys, caller_claim="client_id")
    assert await verifier.caller(token(client_id="robot")) == "robot"
    with pytest.raises(TokenError, match="its claim 'client_id' is missing"):
        await verifier.caller(token())


def deep_header() -> str:
    return base64.urlsafe_b64encode(b"[" * 3000).rstrip(b"=").decode()


WRONG: list[tuple[str, Any]] = [
    ("it has expired", lambda now: token(exp=now - 1)),
    ("it is not yet valid", lambda now: token(nbf=now + 30)),
    ("it is not yet valid", lambda now: token(iat=now + 30)),
    ("it is for another audience; expected 'muse'", lambda now: token(aud="billing")),
    ("it is of another issuer", lambda now: token(iss="https://evil.example")),
    ("its claim 'exp' is missing", lambda now: token(exp=None)),
    ("its claim 'aud' is missing", lambda now: token(aud=None)),
    ("its claim 'iss' is missing", lambda now: token(iss=None)),
    ("its claim 'sub' is missing", lambda now: token(sub=None)),
    ("its claim 'sub' is no caller", lambda now: token(sub="")),
    ("its claim 'sub' is no caller", lambda now: token(sub="x" * 256)),
    ("its claim 'sub' is no caller", lambda now: token(sub="a\nb")),
    ("its signature is not the issuer's", lambda now: token(key="stranger", key_id="RS256 own")),
    ("its issuer has no key of its key id", lambda now: token(key="stranger")),
    ("its header has no key id", lambda now: token(key_id="")),
    ("its algorithm is not the one of its key", lambda now: token("ES256", key_id="RS256 own")),
    ("its algorithm is not allowed", lambda now: forged({"alg": "none", "kid": "RS256 own"})),
    ("its algorithm is not allowed", lambda now: forged({"alg": "None", "kid": "RS256 own"})),
    ("its algorithm is not allowed", lambda now: forged({"kid": "RS256 own"})),
    ("its algorithm is not allowed", lambda now: forged({"alg": ["RS256"], "kid": "RS256 own"})),
    (
        "its algorithm is not allowed",  # key confusion: the public key as the secret of an HMAC
        lambda now: forged({"alg": "HS256", "kid": "RS256 own"}, public_pem("RS256")),
    ),
    (
        "its signature is not the issuer's",
        lambda now: forged({"alg": "RS256", "kid": "RS256 own"}, public_pem("RS256")),
    ),
    ("it is malformed", lambda now: "x" * 4000),
    ("it is malformed", lambda now: "a.b.c"),
    ("it is malformed", lambda now: f"{deep_header()}.e30.e30"),
    ("it is malformed", lambda now: token() + "=!"),
    ("it is malformed", lambda now: forged({"alg": "RS256", "kid": 7})),
    ("it is malformed", lambda now: forged({"alg": "RS256", "kid": "k", "crit": ["b64"]})),
]


@pytest.mark.parametrize(("problem", "make"), WRONG)
async def test_a_token_that_proves_nothing_is_told_why_and_nothing_of_it_is_repeated(
    keys: SigningKeysFile, problem: str, make: Any
) -> None:
    wrong = make(int(time.time()))
    with pytest.raises(TokenError) as caught:
        await verifier_of(keys).caller(wrong)
    assert str(caught.value).startswith(problem)
    assert not any(part in str(caught.value) for part in wrong.split(".") if len(part) > 1)


async def test_clocks_may_differ_by_the_leeway_and_no_more(keys: SigningKeysFile) -> None:
    now, verifier = int(time.time()), verifier_of(keys, leeway_s=30.0)
    assert await verifier.caller(token(exp=now - 10, nbf=now + 10)) == "acme"
    with pytest.raises(TokenError, match="it has expired"):
        await verifier.caller(token(exp=now - 31))


async def test_only_algorithms_that_are_allowed_count(keys: SigningKeysFile) -> None:
    verifier = verifier_of(keys, algorithms=["ES256"])
    assert await verifier.caller(token("ES256")) == "acme"
    with pytest.raises(TokenError, match="not allowed; expected one of ES256"):
        await verifier.caller(token("RS256"))


async def test_keys_are_fetched_once_and_again_for_a_new_one_but_not_for_each_invented_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(jwks()) as endpoint:
        verifier = verifier_of(open_signing_keys(endpoint.url))
        found = await asyncio.gather(*(verifier.caller(token()) for _ in range(20)))
        assert set(found) == {"acme"}
        assert endpoint.fetches == 1

        endpoint.body = jwks("own", "next")
        for number in range(50):
            with pytest.raises(TokenError, match="no key of its key id"):
                await verifier.caller(token(key_id=f"invented {number}"))
        assert endpoint.fetches == 1  # until the time between two fetches is over
        monkeypatch.setattr(signing_keys, "COOLDOWN_S", 0.0)
        assert await verifier.caller(token(key="next")) == "acme"
        assert endpoint.fetches == 2


async def test_an_issuer_that_is_away_leaves_the_keys_that_were_fetched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signing_keys, "COOLDOWN_S", 0.0)
    with served(None) as endpoint:
        fetched = FetchedSigningKeys(endpoint.url)
        verifier = verifier_of(fetched)
        with pytest.raises(RequestError, match="could not be fetched; try again") as caught:
            await verifier.caller(token())
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE

        endpoint.body = jwks()
        assert await verifier.caller(token()) == "acme"
        for body in (None, "no JSON", "[" * 100_000, "{}", '{"keys": []}', *UNUSABLE):
            endpoint.body = body
            await fetched.refresh()
            with pytest.raises(TokenError, match="no key of its key id"):
                await verifier.caller(token(key="stranger"))
            assert await verifier.caller(token()) == "acme"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2  # once each time it went away


# Members that lack what their type needs, or have it of another type.
UNUSABLE = [
    json.dumps({"keys": [member]})
    for member in (
        3,
        {"kty": "RSA"},
        {"kty": "oct", "kid": "a", "alg": "HS256"},
        {"kty": "RSA", "kid": "a", "n": 1, "e": 2},
        {"kty": "EC", "kid": "a", "crv": "P-256", "x": [], "y": {}},
        {"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": 3},
        {"kty": ["RSA"], "kid": "a"},
        {**public_jwk("RS256"), "kid": {"a": 1}},
    )
]


async def test_a_member_that_is_no_key_leaves_the_others(tmp_path: Path) -> None:
    members = [each for body in UNUSABLE for each in json.loads(body)["keys"]]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [*members, public_jwk("RS256")]}))

    assert await verifier_of(SigningKeysFile(path)).caller(token()) == "acme"


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"keys": 3}', *UNUSABLE])
def test_a_file_that_is_no_jwks_is_an_error(tmp_path: Path, body: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(body)
    with pytest.raises(ValueError, match="expected a JWKS with a public key for signatures"):
        open_signing_keys(str(path))


async def test_a_secret_among_the_public_keys_signs_nothing(tmp_path: Path) -> None:
    secret = base64.urlsafe_b64encode(b"k" * 32).rstrip(b"=").decode()
    symmetric = {"kty": "oct", "kid": "shared", "k": secret, "alg": "HS256"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [symmetric]}))
    verifier = verifier_of(SigningKeysFile(path))
    for algorithm in ("HS256", "RS256"):
        with pytest.raises(TokenError, match="its algorithm is not"):
            await verifier.caller(forged({"alg": algorithm, "kid": "shared"}, b"k" * 32))


@pytest.mark.parametrize("url", ["http://issuer.example/jwks.json", "ftp://issuer.example/jwks"])
def test_keys_that_anyone_on_the_way_may_replace_are_not_fetched(url: str) -> None:
    with pytest.raises(ValueError, match="jwt_jwks: expected an https:// URL"):
        open_signing_keys(url)
