"""The command `tokenizer`: what its flags become."""

from pathlib import Path
from typing import Any

import pytest

from training import __main__ as command
from training.recipe_changes import LossChanges
from training.tasks.codebook_watch import CodebookWatch

FLAGS = ("tokenizer", "--data", "d", "--out", "o", "--resolution", "high", "--preset", "tiny")


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[dict[str, Any], Any]:
    """Runs the command without training; returns the task's arguments and the loop's watch."""
    seen: dict[str, Any] = {}

    def task(*_: object, **arguments: Any) -> None:
        seen.update(arguments)

    monkeypatch.setattr(command.runs, "tokenizer_task", task)
    monkeypatch.setattr(command, "_train", lambda *arguments: seen.update(watch=arguments[-1]))
    command.app([*FLAGS, *flags], result_action="return_value")
    return seen, seen.pop("watch")


def test_a_tokenizer_is_watched_and_its_losses_are_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, watch = run(
        monkeypatch,
        *("--checkpoints", "c", "--losses.lecam", "0.1", "--losses.adaptive-adversarial"),
    )

    assert isinstance(watch, CodebookWatch)
    assert arguments["loss_changes"] == LossChanges(lecam=0.1, adaptive_adversarial=True)
    assert not arguments["finetune_decoder"]


def test_a_decoder_is_fine_tuned_from_a_checkpoint_and_its_codebook_is_not_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, watch = run(
        monkeypatch,
        *("--checkpoints", "c", "--finetune-decoder", "--from", "plain"),
        *("--decoder-base-channels", "256", "--decoder-residual-blocks", "4"),
    )

    assert watch is None
    assert (arguments["finetune_decoder"], arguments["initialize_from"]) == (True, Path("plain"))
    assert (arguments["decoder_base_channels"], arguments["decoder_residual_blocks"]) == (256, 4)


def test_a_fine_tuned_tokenizer_does_not_overwrite_the_one_it_starts_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "tokenizer" / "high"
    with pytest.raises(ValueError, match=r"would take the place of .*high, which it starts from"):
        run(
            monkeypatch,
            *("--checkpoints", str(tmp_path), "--finetune-decoder", "--from", str(source)),
        )
