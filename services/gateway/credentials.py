"""The credential of a request, which the gateway passes on and the orchestrator judges."""

from starlette.requests import Request

from services.gateway.errors import ApiError


def credential_of(request: Request) -> str:
    """Returns the key or token that a request presents; empty if none.

    Raises:
        ApiError: it presents something else.
    """
    header = request.headers.get("authorization", "")
    scheme, _, credential = header.partition(" ")
    if header and (scheme.lower() != "bearer" or not credential.strip()):
        raise ApiError(
            401,
            f"authorization: expected Bearer and a key, got {scheme if credential else 'no key'}",
            code="invalid_api_key",
        )
    return credential.strip()
