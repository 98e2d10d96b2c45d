"""Tests for the processes around the orchestrator: who dies is named, who is told to stop stops."""

import io
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.orchestrator.processes import (
    NAMES,
    PLACES,
    consecutive_ports,
    free_ports,
    servers,
    stage_flags,
)


def test_without_a_checkpoint_of_every_stage_nothing_is_started(tmp_path: Path) -> None:
    for place in ("text_encoder", "tokenizer/low", "superres"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    with (
        pytest.raises(
            FileNotFoundError, match=r"no checkpoint of \['tokenizer/high', 'base'\] in "
        ),
        servers(tmp_path, free_ports(), io.StringIO()),
    ):
        raise AssertionError("they must not serve")


def test_every_stage_gets_the_flags_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in PLACES:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    started: dict[str, list[str]] = {}
    popen = subprocess.Popen

    def note(command: list[str], **options: Any) -> Any:
        started[command[2].removeprefix("services.")] = command[3:]
        return popen([sys.executable, "-c", ""], **options)

    monkeypatch.setattr(subprocess, "Popen", note)
    flags = stage_flags(mesh="model=4", weights="int8")
    with (
        pytest.raises(RuntimeError, match="died with 0: it said nothing"),
        servers(tmp_path, free_ports(), io.StringIO(), flags),
    ):
        raise AssertionError("they must not serve")

    own = {name: words[2:] for name, words in started.items() if name != "orchestrator"}
    both = ["--weights=int8", "--mesh=model=4"]
    assert own == {
        "text_encoder": ["--weights=int8"],
        "tokenizer": [],
        "base": both,
        "superres": both,
    }
    assert not any("weights" in word or "mesh" in word for word in started["orchestrator"])
    assert stage_flags() == {}


def test_a_server_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    log = io.StringIO()
    for place in PLACES:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    with (
        pytest.raises(RuntimeError) as died,  # whichever of the four stages is first
        servers(tmp_path, free_ports(), log),
    ):
        raise AssertionError("they must not serve")
    name, words = str(died.value).split(" died with 1: ")
    assert name in NAMES[1:]
    assert words.startswith("cannot start: no ")
    assert str(tmp_path) in words
    assert '"level": "ERROR"' in log.getvalue()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "services.orchestrator"]
        ended = subprocess.run(
            [*command, f"--port={taken.getsockname()[1]}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert "is another server there? Name another --port" in ended.stderr.splitlines()[-1]


def test_ports_follow_the_base_port() -> None:
    assert consecutive_ports(50050) == dict(zip(NAMES, range(50050, 50055), strict=True))
    assert max(consecutive_ports(65531).values()) == 65535
    for wrong in (0, -1, 65532):
        with pytest.raises(ValueError, match=f"expected 1 to 65531, got {wrong}"):
            consecutive_ports(wrong)


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports().values())) == len(NAMES)


def test_an_orchestrator_that_waits_for_its_stages_stops_when_told() -> None:
    dead = f"127.0.0.1:{free_ports()['base']}"
    stages = ("text-encoder", "base", "superres", "tokenizer")
    flags = [f"--{stage}={dead}" for stage in stages]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.orchestrator", "--port=0", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert '"loading"' in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    last = process.communicate(timeout=30)[1].splitlines()[-1]
    assert process.returncode == 0
    assert '"stopped"' in last
