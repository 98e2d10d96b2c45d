"""An issuer of tokens: keys of its own, tokens signed with them, and a JWKS on loopback."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.example", "muse"
CLASSES: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


@cache
def private_key(algorithm: str, name: str = "own") -> Any:
    """Returns the private key of an algorithm, another one for each name."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(algorithm: str, name: str = "own") -> dict[str, Any]:
    """Returns the JWK of a public key; its id is the name of the algorithm and the key's."""
    public = private_key(algorithm, name).public_key()
    jwk: dict[str, Any] = CLASSES[algorithm].to_jwk(public, as_dict=True)
    return {**jwk, "kid": f"{algorithm} {name}", "use": "sig", "alg": algorithm}


def jwks(*names: str) -> str:
    """Returns a JWKS of keys of every algorithm."""
    every = [public_jwk(algorithm, name) for algorithm in CLASSES for name in names or ("own",)]
    return json.dumps({"keys": every})


def claims(**changes: Any) -> dict[str, Any]:
    """Returns good claims with some set to something else, or left out by None."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(
    algorithm: str = "RS256",
    *,
    key: str = "own",
    key_id: str | None = None,
    **changes: Any,
) -> str:
    """Returns a token of good claims with some changed."""
    headers = {"kid": f"{algorithm} {key}" if key_id is None else key_id}
    return jwt.encode(claims(**changes), private_key(algorithm, key), algorithm, headers)


def forged(header: dict[str, Any], secret: bytes | None = None, **changes: Any) -> str:
    """Returns a token that no library would make: any header, signed by HMAC or not at all."""
    parts = [_segment(json.dumps(part).encode()) for part in (header, claims(**changes))]
    signed = ".".join(parts)
    mac = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{_segment(mac)}"


def public_pem(algorithm: str) -> bytes:
    """Returns the public key that everyone knows, as a file has it."""
    public = private_key(algorithm).public_key()
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Endpoint:
    """A JWKS endpoint.

    Attributes:
        url: Its address.
        body: What it answers; None answers 503.
        fetches: How often it was asked.
    """

    def __init__(self, url: str, body: str | None) -> None:
        self.url, self.body, self.fetches = url, body, 0


@contextmanager
def served(body: str | None) -> Iterator[Endpoint]:
    """Serves a JWKS on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            endpoint.fetches += 1
            self.send_response(200 if endpoint.body is not None else 503)
            self.end_headers()
            self.wfile.write((endpoint.body or "").encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/jwks.json", body)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
