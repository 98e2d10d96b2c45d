"""`muse keys`: API keys of an orchestrator."""

from cyclopts import App

app = App(name="keys", help="Makes API keys of an orchestrator.")


@app.command
def new(*, caller: str, policy: str | None = None, expires: str | None = None) -> None:
    """Prints a new API key, once, and the line for the server's file of keys, which keeps a digest.

    Parameters
    ----------
    caller
        Id of the caller that the key is for.
    policy
        Policy of the caller, of the server's file of policies.
    expires
        Time from which on the key is refused: 2027-01-31, or 2027-01-31T12:00:00Z. Never by
        default.
    """
    from services.orchestrator.callers.api_keys import (
        ApiKey,
        check_caller,
        digest_of,
        new_key,
        parse_expiry,
    )

    key = new_key()
    entry = ApiKey(
        caller=check_caller(caller),
        digest=digest_of(key),
        policy=policy,
        expires=None if expires is None else parse_expiry(expires),
    )
    print(f"key, for {caller} alone; it is not shown again:\n{key}")
    print(f"line for the server's --api-keys-file:\n{entry.line()}")
