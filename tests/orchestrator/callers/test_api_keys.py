"""API keys: random, found by their digest alone, and a file that says where it is wrong."""

import json
from datetime import UTC, datetime

import pytest

from services.orchestrator.callers.api_keys import (
    ApiKey,
    ApiKeys,
    digest_of,
    new_key,
    parse_expiry,
    parse_keys,
)

DIGEST = digest_of("muse_one")


def test_keys_are_random_and_have_256_bits() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith("muse_") and len(key) == len("muse_") + 43 for key in keys)


def test_a_line_comes_back_as_it_was_and_has_nothing_of_the_key() -> None:
    key = new_key()
    entry = ApiKey(
        caller="acme",
        digest=digest_of(key),
        policy="gold",
        expires=datetime(2030, 1, 31, tzinfo=UTC),
    )

    assert key.removeprefix("muse_") not in entry.line()
    assert parse_keys(f"# of acme\n\n{entry.line()}\n").find(key) == entry
    assert digest_of(key).hex() not in repr(entry)


def test_a_key_is_found_by_all_of_its_digest() -> None:
    almost = bytes([*DIGEST[:-1], DIGEST[-1] ^ 1])
    keys = ApiKeys([ApiKey(caller="other", digest=almost), ApiKey(caller="one", digest=DIGEST)])

    found = keys.find("muse_one")
    assert found is not None
    assert found.caller == "one"
    assert keys.find("muse_two") is None
    assert keys.find_digest(almost[:-1] + bytes([DIGEST[-1] ^ 2])) is None
    assert keys.find("") is None


def line(**changes: object) -> str:
    return json.dumps({"caller": "acme", "sha256": DIGEST.hex(), **changes})


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("secret", "expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        (line(secret="secret"), "expected a JSON object with some of caller, sha256"),
        (line(sha256="secret"), "sha256: expected 64 hexadecimal digits"),
        (line(sha256=7), "sha256: expected 64 hexadecimal digits"),
        (line(sha256="ab"), "sha256: expected 64 hexadecimal digits"),
        (line(caller=""), "expected a caller of 1 to 255 characters"),
        (line(caller="x" * 256), "expected a caller of 1 to 255 characters"),
        (line(caller="a\nb"), "expected a caller of printable characters"),
        (line(policy=3), "policy: expected a name"),
        (line(expires="secret"), "expires: expected such as 2027-01-31"),
        (line(expires="2027-01-31T12:00:00"), "expires: expected such as 2027-01-31"),
    ],
)
def test_a_line_that_is_no_key_is_named_by_its_number(wrong: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: ") as caught:
        parse_keys(f"# keys\n{wrong}\n")
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_may_not_be_there_twice() -> None:
    with pytest.raises(ValueError, match="expected each key once, got one of 'other' again"):
        parse_keys(f"{line()}\n{line(caller='other')}\n")


def test_a_date_is_its_midnight_in_utc() -> None:
    assert parse_expiry("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert parse_expiry("2027-01-31T01:00:00+01:00") == datetime(2027, 1, 31, tzinfo=UTC)
