"""A short run of the whole: few faults, cancels and a planted leak, on tiny checkpoints."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.report import Report, open_report
from tests.chaos.run import RunSettings, run

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits of other processes are Linux's"
)


async def test_a_short_run_holds_every_check_and_catches_the_leak_that_was_planted(
    checkpoints: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    settings = RunSettings(
        minutes=0.25,
        seed=28070,  # kill base-0, cut tokenizer-0, kill workers, stop superres-0
        rate=1,
        cancels=10,
        max_faults=4,
        longest_s=2,
        replicas=("base=2",),
        heal_s=240,
        warm_up_s=2,
        growth_mib=16,
        plant_leak=4 * 1024,
        checkpoints=checkpoints,
        out=tmp_path,
    )
    with open_report(tmp_path) as file:
        assert await run(settings, Report(file)) == []
    events: dict[str, list[dict[str, Any]]] = {}
    for line in (tmp_path / "report.jsonl").read_text().splitlines():
        event = json.loads(line)
        events.setdefault(event["event"], []).append(event)
    faults, (end,) = events["fault"], events["end"]
    assert (faults[0]["kind"], faults[0]["target"]) == ("kill", "base-0")
    assert all(fault["healed_s"] is not None for fault in faults)
    assert end["answered"] > 0
    assert end["cancelled"] > 0
    judged = {process["process"] for process in events["process"]}
    assert "text-encoder-0" in judged
    assert capsys.readouterr().out.endswith("every check holds\n")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minutes": 0}, "minutes: expected a number above 0, got 0"),
        ({"rate": float("inf")}, "rate: expected a number above 0, got inf"),
        ({"cancels": -1}, "cancels: expected 0 or more, got -1"),
        ({"kinds": ("flood",)}, "kinds: expected some of"),
        ({"replicas": ("orchestrator=2",)}, "replicas: expected one orchestrator"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        RunSettings(**wrong)
