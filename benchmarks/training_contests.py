"""What a measurement of training compares: each stage's task on one batch, and its PyTorch twin."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.torch_training import MaskedTokensTwin, TokenizerTwin
from services.base.config import BaseConfig
from services.presets import Preset
from services.runtime.checkpoints.precision import Precision
from services.superres.config import SuperresConfig
from training.compilation.step import Stage
from training.loop import Task
from training.mesh import one_device
from training.recipes import RECIPES
from training.tasks.frozen import Examples, FrozenStages
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask
from training.tasks.tokenizer import TokenizerTask


class ReadyExamples(MaskedTokensTask):
    """The task of a transformer on one batch that lies ready, without pictures."""

    def picture(self, state: Any, batch: Examples) -> None:
        """Draws nothing."""


class NoStages(FrozenStages):
    """Stands for the frozen stages, which a batch that lies ready does without."""

    def __init__(self) -> None:
        """Has no stage."""

    def fingerprint(self) -> dict[str, str]:
        """Names stages that there are not."""
        return {"encoder": "none", "codebook": "none"}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What is measured of a stage.

    Attributes:
        task: Ours.
        twin: Builds PyTorch's from our parameters.
        precision: Of the factors of products.
    """

    task: Task
    twin: Callable[..., MaskedTokensTwin | TokenizerTwin]
    precision: Precision


def contest_of(system: Preset, stage: Stage) -> Contest:
    """Returns what is measured of a stage, on random examples."""
    recipes = RECIPES[system.name]
    if stage in ("base", "superres"):
        config = system.base if stage == "base" else system.superres
        recipe = recipes.base if stage == "base" else recipes.superres
        examples = examples_of(config, recipe.batch_size)
        step = MaskedTokensStep(config, recipe, one_device())
        return Contest(
            task=ReadyExamples(step, NoStages(), lambda _: examples),
            twin=partial(MaskedTokensTwin, config, recipe, examples=examples),
            precision=recipe.precision,
        )
    low = stage == "tokenizer-low"
    tokenizer = system.low_tokenizer if low else system.high_tokenizer
    recipe = recipes.low_tokenizer if low else recipes.high_tokenizer
    side = tokenizer.image_size // recipes.tokenizer_crop
    images = np.random.default_rng(0).integers(
        0, 256, (recipe.batch_size, side, side, 3), dtype=np.uint8
    )
    losses = recipes.tokenizer_losses
    return Contest(
        task=TokenizerTask(tokenizer, recipe, losses, lambda _: images, resolution=stage),
        twin=partial(TokenizerTwin, tokenizer, recipe, losses, images=images),
        precision="float32",
    )


def examples_of(config: BaseConfig | SuperresConfig, batch_size: int) -> Examples:
    """Returns random examples whose captions have half of the text positions."""
    random = np.random.default_rng(0)
    length = config.text_length // 2

    def tokens(codes: int, count: int) -> jax.Array:
        return jnp.asarray(random.integers(0, codes, (batch_size, count)), jnp.int32)

    of_grid = tokens(config.vocabulary, config.tokens)
    low, high = of_grid, None
    if isinstance(config, SuperresConfig):
        low, high = tokens(config.low_vocabulary, config.low_tokens), of_grid
    return Examples(
        low=low,
        high=high,
        text=jnp.asarray(random.normal(size=(batch_size, length, config.text_hidden)), jnp.float32),
        text_mask=jnp.ones((batch_size, length), bool),
    )
