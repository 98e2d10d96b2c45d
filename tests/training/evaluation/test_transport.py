"""Commands that call servers: where these are, and how they are spoken to."""

from pathlib import Path

import pytest

from tools.cli.options import TlsFlags
from training.evaluation.__main__ import app

COMMANDS = {
    "scenes": "--data=x",
    "sampling": "--data=x",
    "edits": "--data=x",
    "gallery": "--data=x",
    "generate": "--prompts=x --out=y",
    "pareto": "--prompts=x --reference=x --model=x --out=y",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_the_server_and_its_tls_from_variables_or_flags(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = COMMANDS[command].split()
    monkeypatch.setenv("MUSE_SERVER", "muse.example:443")
    monkeypatch.setenv("MUSE_TLS_CA", "ca.crt")
    _, by_variables, _ = app.parse_args([command, *needed], exit_on_error=False)
    assert by_variables.arguments["server"] == "muse.example:443"
    assert by_variables.arguments["transport"] == TlsFlags(tls_ca=Path("ca.crt"))
    flags = ["--server=here:1", "--tls-ca=other.crt", "--tls-server-name=muse"]
    _, by_flags, _ = app.parse_args([command, *needed, *flags], exit_on_error=False)
    assert by_flags.arguments["server"] == "here:1"
    expected = TlsFlags(tls_ca=Path("other.crt"), tls_server_name="muse")
    assert by_flags.arguments["transport"] == expected


def test_a_client_gets_that_tls(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a ball\n")
    command = ["generate", f"--prompts={prompts}", f"--out={tmp_path / 'out'}", "--tls-cert=a.crt"]
    with pytest.raises(ValueError, match="tls key: expected a file beside that of the cert"):
        app(command, exit_on_error=False)
