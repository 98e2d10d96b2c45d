"""Adapters that a request names, checked against what is served."""

import pytest

from services.runtime.wire.adapters import check_adapters
from services.runtime.wire.errors import RequestError


def test_a_server_without_adapters_says_that_it_has_none() -> None:
    check_adapters([], [])
    with pytest.raises(RequestError, match="expected none, for none are served, got 'fox'"):
        check_adapters(["fox"], [])


def test_a_name_as_long_as_a_book_is_not_repeated_in_full() -> None:
    with pytest.raises(RequestError, match="expected one of fox, got 'aaaa") as caught:
        check_adapters(["a" * 10**6], ["fox"])
    assert len(caught.value.message) < 200


def test_names_that_are_served_pass_in_any_order() -> None:
    check_adapters(["owl", "fox"], {"fox": "sha256:1", "owl": "sha256:2", "cat": "sha256:3"})
