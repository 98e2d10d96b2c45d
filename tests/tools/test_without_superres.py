"""`muse describe` and `muse plan` of a preset without a superres."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.presets import PRESETS, preset
from services.presets.definition import preset_of
from tools.description.chips import chip
from tools.description.command import describe as describe_command
from tools.description.description import describe
from tools.planning.command import plan
from tools.planning.demand import demand_of

WHOLE = preset("tiny")
THREE = replace(WHOLE, name="three", superres_part=None)
STAGES = ["text_encoder", "base", "tokenizer"]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the preset, among all others."""
    monkeypatch.setitem(PRESETS, THREE.name, THREE)
    return THREE.name


def test_a_preset_is_composed_with_a_superres_and_its_tokenizer_or_with_neither() -> None:
    parts = {"text_encoder": WHOLE.text_encoder, "low_tokenizer": WHOLE.low_tokenizer}
    base = {"hidden": 16, "layers": 1, "heads": 2, "mlp": 32}
    assert preset_of("three", base=base, **parts) == THREE  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected both high_tokenizer and superres, or neither"):
        preset_of("half", base=base, superres=base, **parts)  # type: ignore[arg-type]
    assert (list(THREE.stages), list(THREE.tokenizers)) == (STAGES, ["low"])
    for attribute in ("superres", "high_tokenizer", "superres_steps"):
        with pytest.raises(ValueError, match="preset three has no superres"):
            getattr(THREE, attribute)


def test_its_picture_costs_the_bases_grid_and_the_low_tokenizer() -> None:
    described, whole = describe(THREE, chip("v5e")), describe(WHOLE, chip("v5e"))

    assert list(described.stages) == STAGES
    for stage in ("text_encoder", "base"):
        assert described.stages[stage] == whole.stages[stage]
    tokenizer = described.stages["tokenizer"]
    assert tokenizer.members == {"low": whole.stages["tokenizer"].members["low"]}
    assert tokenizer.cost == tokenizer.members["low"].cost
    assert described.parameters == sum(each.parameters for each in described.stages.values())


def test_describe_prints_the_stages_that_are_there(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    describe_command(preset=name, chip="cpu")
    printed = capsys.readouterr().out

    assert all(stage in printed for stage in STAGES)
    assert "superres" not in printed


def test_a_request_asks_for_no_steps_of_a_superres() -> None:
    (work,) = demand_of(["steps=8"], THREE, rate=5).works.values()
    assert work.amounts == {"orchestrator": 1, "text_encoder": 1, "base": 8, "tokenizer": 1}
    with pytest.raises(ValueError, match="mix: superres_steps: expected none, since three has no"):
        demand_of(["superres_steps=8"], THREE, rate=5)


def test_a_plan_has_replicas_of_the_stages_that_are_there(name: str, tmp_path: Path) -> None:
    plan(
        images_per_second=20,
        p99="1500ms",
        chip="v5e",
        preset=name,
        requests=1000,
        out=tmp_path,
    )
    report = json.loads((tmp_path / "plan.json").read_text())

    assert list(report["stages"]) == ["orchestrator", *STAGES]


def test_measured_times_of_a_superres_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text('{"stages": {"superres": {"step_s": {"2": 0.02}}}}')
    with pytest.raises(ValueError, match=r"stages of three, orchestrator, .*, got superres"):
        plan(
            images_per_second=1,
            p99="2s",
            chip="v5e",
            preset=name,
            step_times=file,
            out=tmp_path / "out",
        )
