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
from services.runtime.checkpoints import load_checkpoint
from services.tokenizer.config import TokenizerConfig
from training.data.sources import ImageSource, open_source
from training.optimizers import Recipe
from training.recipes import RECIPES
from training.tasks.tokenizer import TokenizerTask


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
