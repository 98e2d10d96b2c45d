"""Puts each stage's task together: its data, its frozen predecessors, its recipe.

A run reads the checkpoints of the stages before its own from one root, the folder that
`--checkpoints` of the services names, and exports its own there:

    text_encoder/   tokenizer/low/   tokenizer/high/   base/   superres/
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from services.presets import Preset
from services.runtime.checkpoints.serialization import load_checkpoint
from services.tokenizer.config import TokenizerConfig
from training.data.sources import ImageSource, open_source
from training.optimizers import Recipe
from training.precompute.examples import PrecomputedExamples, PrecomputedSource
from training.precompute.shards import ShardError
from training.recipes import RECIPES
from training.tasks.frozen import FrozenStages, load_frozen_stages
from training.tasks.masked_tokens import MaskedTokensTask
from training.tasks.text_encoder import RECIPES as TEXT_ENCODER_RECIPES
from training.tasks.text_encoder import TextEncoderTask, vocabulary_for
from training.tasks.tokenizer import TokenizerTask
from training.tasks.word_directions import telling_kernel

MEASURED_CAPTIONS = 2048  # from which it is measured what tells words apart


def tokenizer_task(
    preset: Preset,
    data: Path,
    *,
    resolution: str,
    seed: int,
    steps: int | None,
    initialize_from: Path | None,
) -> TokenizerTask:
    """Returns the task that trains one of the two tokenizers.

    Args:
        preset: The system it belongs to.
        data: Folder of sprites or of WebDataset tars.
        resolution: "low" for the base's tokenizer, "high" for the superres's.
        seed: Of the data and the initial parameters.
        steps: Optimizer steps instead of the recipe's.
        initialize_from: Checkpoint folder of a tokenizer of the same shape to start from.
    """
    recipes = RECIPES[preset.name]
    low = resolution == "low"
    config = preset.low_tokenizer if low else preset.high_tokenizer
    recipe = _with_steps(recipes.low_tokenizer if low else recipes.high_tokenizer, steps)
    source = _source(preset, data, recipe, seed)
    return TokenizerTask(
        config,
        recipe,
        recipes.tokenizer_losses,
        source.low if low else source.high,
        resolution=resolution,
        seed=seed,
        initial_parameters=_parameters(initialize_from) if initialize_from else None,
    )


def text_encoder_task(
    preset: Preset, data: Path, out: Path, *, seed: int, steps: int | None
) -> TextEncoderTask:
    """Returns the task that trains a small text encoder on captions.

    Args:
        preset: The system it belongs to.
        data: Folder of sprites or of WebDataset tars.
        out: Folder of the run, where its vocabulary is kept.
        seed: Of the captions, the initial parameters and the spans.
        steps: Optimizer steps instead of the recipe's.

    Raises:
        ValueError: the preset's text encoder is T5's own, which is not trained here.
    """
    if preset.name not in TEXT_ENCODER_RECIPES:
        raise ValueError(
            f"preset {preset.name!r} has T5's own text encoder, which is not trained here: "
            f"expected one of {', '.join(TEXT_ENCODER_RECIPES)}"
        )
    recipe = _with_steps(TEXT_ENCODER_RECIPES[preset.name], steps)
    captions = _source(preset, data, recipe, seed).captions
    vocabulary = vocabulary_for(out, captions, preset.text_encoder.vocabulary_size, seed=seed)
    return TextEncoderTask(preset.text_encoder, recipe, captions, vocabulary, seed=seed)


def transformer_task(
    preset: Preset,
    stage: str,
    data: Path,
    checkpoints: Path,
    *,
    seed: int,
    steps: int | None,
    precomputed: Path | None = None,
) -> MaskedTokensTask:
    """Returns the task that trains the base or the super-resolution transformer.

    Args:
        preset: The system it belongs to.
        stage: "base" or "superres".
        data: Folder of sprites or of WebDataset tars.
        checkpoints: Root of the frozen stages.
        seed: Of the data, the initial parameters and the masks.
        steps: Optimizer steps instead of the recipe's.
        precomputed: Folder of shards of the same data, instead of computing its tokens and
            embeddings at each step.

    Raises:
        ShardError: the shards are incomplete, or were made by other stages.
    """
    recipes = RECIPES[preset.name]
    high = stage == "superres"
    recipe = _with_steps(recipes.superres if high else recipes.base, steps)
    config = preset.superres if high else preset.base
    frozen = load_frozen_stages(checkpoints, high=high)
    images = _source(preset, data, recipe, seed).captioned
    batches = range(max(1, MEASURED_CAPTIONS // recipe.batch_size))
    captions = [caption for step in batches for caption in images(step)[1]]
    vectors, words = frozen.text_encoder.words(captions)
    return MaskedTokensTask(
        config,
        recipe,
        frozen,
        images,
        seed=seed,
        text_projection=telling_kernel(vectors, words, config.hidden, seed=seed),
        precomputed=None
        if precomputed is None
        else _precomputed(precomputed, frozen, recipe.batch_size, seed),
    )


def _precomputed(
    folder: Path, frozen: FrozenStages, batch_size: int, seed: int
) -> PrecomputedExamples:
    source, high = PrecomputedSource(folder), frozen.high is not None
    low_name = "low_codebook" if high else "codebook"
    wanted = frozen.fingerprint()
    names = {"encoder": "encoder", low_name: "low_codebook"} | (
        {"codebook": "codebook"} if high else {}
    )
    for name, called in names.items():
        if source.made_by[called] != wanted[name]:
            raise ShardError(
                f"{folder}: expected what {wanted[name]} makes, got what {source.made_by[called]} "
                "made: run `python -m training.precompute` again, into another folder"
            )
    return PrecomputedExamples(
        source,
        high=high,
        maximum_length=frozen.text_encoder.maximum_length,
        batch_size=batch_size,
        seed=seed,
    )


def _source(preset: Preset, data: Path, recipe: Recipe, seed: int) -> ImageSource:
    return open_source(
        data,
        side_px=preset.high_tokenizer.image_size,
        batch_size=recipe.batch_size,
        seed=seed,
    )


def _parameters(folder: Path) -> Mapping[str, np.ndarray]:
    return load_checkpoint(folder, stage="tokenizer", config_type=TokenizerConfig).parameters


def _with_steps(recipe: Recipe, steps: int | None) -> Recipe:
    if steps is None:
        return recipe
    return replace(
        recipe,
        steps=steps,
        warm_up_steps=max(1, min(recipe.warm_up_steps, steps // 10)),
    )
