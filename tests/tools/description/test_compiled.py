"""What a TPU compiler said of a preset, read back, and what is no such file."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.presets import preset
from tools.cli.main import app
from tools.description.chips import chip
from tools.description.compiled import CompiledStage, CompiledStages, read_compiled
from tools.planning.computed import computed

V5E = chip("v5e")


def program(stage: str, peak: int, temporary: int) -> dict[str, Any]:
    return {"stage": stage, "peak_bytes": peak, "temporary_bytes": temporary}


def document(**changes: Any) -> dict[str, Any]:
    programs = [
        program("text_encoder", 4_000_000_000, 800),
        program("base", 8_000_000_000, 5_000_000),
        program("base", 1_000_000_000, 7_000_000),
    ]
    topologies = {"v4:1x1": [], "v5e:1x1": programs}
    whole = {"preset": "tiny", "mesh": "", "max_batch_size": 8, "topologies": topologies}
    return whole | changes


def written(folder: Path, content: Any) -> Path:
    file = folder / "programs.json"
    file.write_text(json.dumps(content))
    return file


def test_a_stage_takes_what_its_largest_program_takes(tmp_path: Path) -> None:
    file = written(tmp_path, document())
    assert read_compiled(file, preset="tiny", chip=V5E) == CompiledStages(
        topology="v5e:1x1",
        max_batch_size=8,
        stages={
            "text_encoder": CompiledStage(peak_bytes=4_000_000_000, temporary_bytes=800),
            "base": CompiledStage(peak_bytes=8_000_000_000, temporary_bytes=7_000_000),
        },
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (document(preset="muse-3b"), "expected those of tiny, .* has those of muse-3b"),
        (document(mesh="model=4"), "expected those of stages with one chip each, .* (model=4)"),
        (document(topologies={"v6e:1x1": []}), "expected some for v5e, .* has those for v6e:1x1"),
        ([], "is not what `python -m benchmarks.tpu_programs --json FILE` writes"),
        ({"preset": "tiny"}, "is not what .* writes: KeyError"),
        (document(topologies={"v5e:1x1": [{"stage": "base"}]}), "is not what .* KeyError"),
        (document(max_batch_size="many"), "is not what .* ValueError"),
    ],
)
def test_another_file_is_refused_by_a_sentence(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        read_compiled(written(tmp_path, content), preset="tiny", chip=V5E)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read: No such file"):
        read_compiled(tmp_path / "nowhere.json", preset="tiny", chip=V5E)


def test_describe_says_what_each_stage_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, document())
    words = ["describe", "--preset=tiny", "--chip=v5e", f"--programs={file}"]
    app(words, result_action="return_value")
    printed = capsys.readouterr().out
    assert "Memory on v5e:1x1 with a batch of 8, by compiler" in printed
    assert [" ".join(line.split()) for line in printed.splitlines() if "50%" in line] == [
        "base 8.00 GB 50% 7.00 MB"
    ]
    app([*words, "--json"], result_action="return_value")
    compiled = json.loads(capsys.readouterr().out)["compiled"]
    assert compiled["stages"]["text_encoder"] == {
        "peak_bytes": 4_000_000_000,
        "temporary_bytes": 800,
    }


def test_a_plan_counts_temporaries_as_memory(tmp_path: Path) -> None:
    compiled = read_compiled(written(tmp_path, document()), preset="tiny", chip=V5E)
    before, after = (
        computed(
            preset("tiny"),
            V5E,
            ["text_encoder", "base", "superres"],
            efficiency=1.0,
            max_batch_size=None,
            compiled=each,
        )
        for each in (None, compiled)
    )
    added = {
        stage: [
            more.memory_bytes - less.memory_bytes
            for more, less in zip(after[stage], before[stage], strict=True)
        ]
        for stage in before
    }
    assert added == {
        "text_encoder": [100, 200, 400, 800, 1600],
        "base": [7_000_000] * 5,
        "superres": [0] * 5,
    }
