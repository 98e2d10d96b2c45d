"""Messages of refusals are one line that a terminal and a log can show, whatever a caller wrote."""

import grpc
import pytest

from services.runtime.wire.errors import (
    MAX_MESSAGE_LENGTH,
    failed_precondition,
    invalid_field,
    printable,
    shortened,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ein Füchslein \U0001f98a", "ein Füchslein \U0001f98a"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202efox", r"\u202efox"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert failed_precondition(f"got {text}").message == f"got {shown}"
    refusal = invalid_field("codebook", expected="codebook:1", got=text)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message == f"codebook: expected codebook:1, got {shown}"
    assert refusal.violations[0].description == f"expected codebook:1, got {shown}"


def test_a_message_is_as_long_as_its_limit_after_it_is_escaped() -> None:
    message = failed_precondition("\x1b" * MAX_MESSAGE_LENGTH).message

    assert message == shortened(r"\x1b" * MAX_MESSAGE_LENGTH, MAX_MESSAGE_LENGTH)
