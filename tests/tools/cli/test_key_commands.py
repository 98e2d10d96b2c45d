"""`muse keys`: a key that is shown once, and the line by which a server knows it."""

import pytest

from services.orchestrator.callers.api_keys import parse_keys
from tools.cli.main import app


def test_a_new_key_is_known_by_the_line_that_is_printed_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = "keys new --caller acme --policy gold --expires 2031-01-31"
    app(command.split(), result_action="return_value")

    _, key, _, line = capsys.readouterr().out.splitlines()
    found = parse_keys(line).find(key)
    assert found is not None
    assert (found.caller, found.policy) == ("acme", "gold")
    assert found.expires is not None
    assert found.expires.year == 2031
    assert key not in line


@pytest.mark.parametrize(
    "wrong", [["--caller", ""], ["--caller", "acme", "--expires", "tomorrow"], ["--caller", "a\n"]]
)
def test_a_key_that_no_server_would_take_is_not_made(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        app(["keys", "new", *wrong], result_action="return_value")
