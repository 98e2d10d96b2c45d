"""The credential that a client presents: an API key, or a JSON Web Token."""

import os

API_KEY_VARIABLE = "MUSE_API_KEY"


def credential_metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of each call: the header `authorization`, if there is a credential.

    Args:
        api_key: API key or token; None takes the environment variable MUSE_API_KEY, if it is set.

    Raises:
        ValueError: the credential has a character that no header may have. gRPC would say so too,
            with the credential in the message.
    """
    credential = os.environ.get(API_KEY_VARIABLE) if api_key is None else api_key
    if not credential:
        return ()
    if not (credential.isascii() and credential.isprintable()) or " " in credential:
        name = API_KEY_VARIABLE if api_key is None else "api_key"
        raise ValueError(f"{name}: expected printable ASCII without spaces, got other characters")
    return (("authorization", f"Bearer {credential}"),)
