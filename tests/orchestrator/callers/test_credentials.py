"""The header of a credential, and the address that stands for a caller without one."""

import grpc
import pytest

from services.orchestrator.callers.credentials import (
    Identity,
    address_of,
    read_credential,
)
from services.orchestrator.callers.policies import Policy
from services.runtime.wire.errors import RequestError


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ([], "got none"),
        (["Bearer secret", "Bearer secret"], "expected one header `authorization`, got 2"),
        (["secret"], "got another form"),
        (["Basic secret"], "got another form"),
        (["Bearer"], "got another form"),
        (["Bearer   "], "got another form"),
        (["Bearer " + "secret" * 2000], "expected a header of at most 4096 characters, got 12007"),
        ([b"\xffsecret"], "got another form"),
    ],
)
def test_a_header_that_is_no_credential_is_told_why_without_repeating_it(
    headers: list[str | bytes], problem: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_credential(headers)
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert problem in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("header", ["Bearer key", "bearer key", "BEARER  key "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert read_credential([header]) == "key"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv4:10.0.0.7:4712", "10.0.0.7"),
        ("ipv6:%5B2001:db8:1:2:aaaa::1%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:bbbb::2%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:4711", "10.0.0.7"),
        ("unix:/run/muse.sock", "unix"),
    ],
)
def test_a_caller_has_one_address_however_it_connects(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_stages_hear_of_the_credential_and_of_a_name_only_where_the_policy_trusts_it() -> None:
    plain = Identity(id="acme", kind="key", policy=Policy())
    gateway = Identity(id="acme", kind="key", policy=Policy(names_callers=True))
    assert plain.fairness_id("alice") == plain.fairness_id("bob") == "acme"
    assert (gateway.fairness_id("alice"), gateway.fairness_id("")) == ("acme/alice", "acme")


def test_an_id_that_is_too_long_for_the_stages_is_told_apart_all_the_same() -> None:
    ids = {
        Identity(id="x" * 200 + end, kind="token", policy=Policy()).fairness_id("")
        for end in ("1", "2", "2")
    }
    assert len(ids) == 2
    assert all(len(each) == 64 for each in ids)
