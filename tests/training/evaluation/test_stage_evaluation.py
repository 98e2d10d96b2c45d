"""The base alone and the super-resolution alone: untrained ones run, and match what is served."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.presets import preset
from services.runtime.checkpoints import CheckpointMismatch
from training import runs
from training.evaluation.scenes import PromptCase, draw_prompt_cases
from training.evaluation.stages import BaseAlone, SuperresAlone, default_sampling
from training.evaluation.testbed import Testbed, open_testbed

TINY = preset("tiny")


@pytest.fixture(scope="module", autouse=True)
def few_captions() -> Iterator[None]:
    """Measures words on fewer captions: a picture is drawn for each of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "MEASURED_CAPTIONS", 32)
        yield


@pytest.fixture(scope="module")
def tiny_testbed(artwork: Path) -> Testbed:
    return open_testbed("tiny", artwork)


@pytest.fixture(scope="module")
def checkpoints(artwork: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of every stage, untrained."""
    root, out = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("runs")
    text = runs.text_encoder_task(TINY, artwork, out, seed=0, steps=2)
    text.export(text.initial_state(), root / "text_encoder", {})
    for resolution in ("low", "high"):
        task = runs.tokenizer_task(
            TINY, artwork, resolution=resolution, seed=0, steps=2, initialize_from=None
        )
        task.export(task.initial_state(), root / "tokenizer" / resolution, {})
    for stage in ("base", "superres"):
        masked = runs.transformer_task(TINY, stage, artwork, root, seed=0, steps=2)
        masked.export(masked.initial_state(), root / stage, {})
    return root


@pytest.fixture(scope="module")
def cases(tiny_testbed: Testbed) -> list[PromptCase]:
    """More than there are slots."""
    return draw_prompt_cases(
        tiny_testbed.vocabulary, tiny_testbed.board, 9, seed=1, groups=("single",)
    )


def test_the_base_alone_gives_low_resolution_pictures_that_depend_on_their_case_alone(
    checkpoints: Path, cases: list[PromptCase]
) -> None:
    alone = BaseAlone(checkpoints / "base", checkpoints, TINY)
    assert (alone.sampling.steps, alone.sampling.guidance) == (TINY.base_steps, 4.0)
    sampling = replace(alone.sampling, steps=3)
    pictures = list(alone.generate_all(cases, sampling))
    assert {picture.shape for picture in pictures} == {(16, 16, 3)}
    assert len(pictures) == 9
    (again,) = alone.generate_all(cases[8:], sampling)
    np.testing.assert_array_equal(again, pictures[8])
    assert len({picture.tobytes() for picture in pictures}) > 1


def test_a_checkpoint_names_its_own_sampling_parameters(tmp_path: Path) -> None:
    (tmp_path / "sampling.json").write_text('{"temperature": 0.25}')
    sampling = default_sampling(tmp_path, steps=24)
    assert (sampling.temperature, sampling.guidance, sampling.steps) == (0.25, 4.0, 24)


def test_superres_alone_gives_pictures_of_the_true_low_tokens(
    checkpoints: Path, cases: list[PromptCase], tiny_testbed: Testbed
) -> None:
    alone = SuperresAlone(checkpoints / "superres", checkpoints, TINY)
    sampling = replace(alone.sampling, steps=2)
    pictures = list(alone.generate_all(cases[:2], sampling, tiny_testbed))
    assert {picture.shape for picture in pictures} == {(32, 32, 3)}
    other_scene = replace(cases[0], scene=cases[1].scene)
    (other,) = alone.generate_all([other_scene], sampling, tiny_testbed)
    assert not np.array_equal(other, pictures[0])


def test_a_transformer_of_another_encoder_is_refused(
    artwork: Path, checkpoints: Path, tmp_path: Path
) -> None:
    text = runs.text_encoder_task(TINY, artwork, tmp_path / "run", seed=1, steps=2)
    text.export(text.initial_state(), tmp_path / "text_encoder", {})
    (tmp_path / "tokenizer").symlink_to(checkpoints / "tokenizer")
    with pytest.raises(CheckpointMismatch, match="was trained for the encoder"):
        BaseAlone(checkpoints / "base", tmp_path, TINY)
