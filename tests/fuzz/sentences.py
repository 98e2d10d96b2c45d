"""What a refusal says: something, in one line, that is not longer than a line can be read."""

MAX_LENGTH = 1000


def check_sentence(text: str, *, begins: str = "", longest: int = MAX_LENGTH) -> None:
    """Checks the message of a refusal.

    Raises:
        AssertionError: it is empty, long, of several lines, or begins otherwise.
    """
    assert text.strip(), "a refusal without a message"
    assert text.startswith(begins), f"expected {begins!r} at the start, got {text!r}"
    assert len(text) <= longest, f"{len(text)} characters: {text[:100]}..."
    assert "\n" not in text, repr(text)
