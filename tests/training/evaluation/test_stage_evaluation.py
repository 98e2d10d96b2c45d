"""The base alone and the super-resolution alone: untrained ones run, and match what is served."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import save_checkpoint
from services.superres.model import SuperresTransformer
from training import runs
from training.evaluation.scenes import PromptCase, draw_prompt_cases
from training.evaluation.stages import BaseAlone, SuperresAlone, default_sampling
from training.evaluation.testbed import Testbed, open_testbed
from training.recipe_changes import RecipeChanges
from training.tasks.frozen import load_frozen_stages

TINY = preset("tiny")


@pytest.fixture(scope="module")
def tiny_testbed(artwork: Path) -> Testbed:
    return open_testbed("tiny", artwork)


def _save(
    folder: Path,
    model: BaseTransformer | SuperresTransformer,
    fingerprint: Mapping[str, str],
) -> None:
    base = isinstance(model, BaseTransformer)
    save_checkpoint(
        folder,
        stage="base" if base else "superres",
        config=TINY.base if base else TINY.superres,
        parameters={name: np.asarray(value) for name, value in parameters_of(model).items()},
        fingerprint=fingerprint,
        record={},
    )


@pytest.fixture(scope="module")
def checkpoints(artwork: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of every stage, untrained."""
    root, out = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("runs")
    text = runs.text_encoder_task(TINY, artwork, out, seed=0, changes=RecipeChanges(steps=2))
    text.export(text.params(text.initial_state(text.given)), root / "text_encoder", {})
    for resolution in ("low", "high"):
        task = runs.tokenizer_task(
            TINY, artwork, out, resolution=resolution, seed=0, changes=RecipeChanges(steps=2)
        )
        task.export(
            task.params(task.initial_state(task.given)), root / "tokenizer" / resolution, {}
        )
    frozen = {high: load_frozen_stages(root, high=high).fingerprint() for high in (False, True)}
    _save(root / "base", BaseTransformer(TINY.base, rngs=nnx.Rngs(0)), frozen[False])
    _save(root / "superres", SuperresTransformer(TINY.superres, rngs=nnx.Rngs(0)), frozen[True])
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
    assert (alone.sampling.steps, alone.sampling.guidance_scale) == (TINY.base_steps, 4.0)
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
    assert (sampling.temperature, sampling.guidance_scale, sampling.steps) == (0.25, 4.0, 24)


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


def test_a_transformer_of_another_encoder_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    model = BaseTransformer(TINY.base, rngs=nnx.Rngs(0))
    names = {**load_frozen_stages(checkpoints, high=False).fingerprint(), "encoder": "t5:another"}
    _save(tmp_path / "base", model, names)
    with pytest.raises(CheckpointMismatch, match="was trained for the encoder t5:another"):
        BaseAlone(tmp_path / "base", checkpoints, TINY)
