"""Compiles the training step of a stage for TPUs that are not here, and reads what it will take."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from services.presets import Preset
from training.compilation.collectives import Collectives, collectives_of
from training.flops import flops_of_jaxpr
from training.mesh import Execution
from training.recipe_changes import RecipeChanges
from training.recipes import RECIPES
from training.sharded_step import Computation, ShardedStep
from training.tasks.frozen import Examples
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.tokenizer import TokenizerTask

logger = logging.getLogger(__name__)
Stage = Literal["base", "superres", "tokenizer-low", "tokenizer-high"]


@dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """What the compiler says of one step on one chip.

    Attributes:
        chips: In the mesh.
        chip: Their kind.
        argument_bytes: Of the state and the batch.
        temporary_bytes: Of activations, gradients and gathered parameters, at their peak.
        flops: Products and convolutions of the model, without what remat computes again.
        collectives: By kind; None if this jaxlib cannot read the program, as of v6e, whose
            asynchronous operations it takes for damaged.
        seconds: That the compilation took here.
    """

    chips: int
    chip: str
    argument_bytes: int
    temporary_bytes: int
    flops: float
    collectives: Sequence[Collectives] | None
    seconds: float


def compile_step(
    preset: Preset, stage: Stage, execution: Execution, changes: RecipeChanges
) -> CompiledStep:
    """Compiles a stage's step.

    Args:
        preset: The system.
        stage: Which of its stages.
        execution: The mesh of a topology, and how the step is computed on it.
        changes: Of the preset's recipe.

    Raises:
        ValueError: the mesh does not divide the batch.
        jax.errors.JaxRuntimeError: the step does not fit into a chip's memory.
    """
    computation, batch = _computation(preset, stage, execution, changes)
    execution.check_batch(jax.tree.leaves(batch)[0].shape[0])
    phase = "adversarial" if stage.startswith("tokenizer") else "training"
    number = jax.ShapeDtypeStruct((), jnp.int32)
    began = time.monotonic()
    step = ShardedStep(computation, execution)
    traced = step.trace(step.template, batch, number, phase)
    compiled = traced.lower().compile()
    seconds = time.monotonic() - began
    memory: Any = compiled.memory_analysis()
    devices = execution.mesh.devices
    return CompiledStep(
        chips=devices.size,
        chip=devices.flat[0].device_kind,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        flops=flops_of_jaxpr(traced.jaxpr.jaxpr) / devices.size,
        collectives=_collectives(compiled),
        seconds=seconds,
    )


def _collectives(compiled: Any) -> Sequence[Collectives] | None:
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        logger.warning("the compiled program cannot be read: %s", str(error).splitlines()[0])
        return None
    return collectives_of(text)


def _computation(
    preset: Preset, stage: Stage, execution: Execution, changes: RecipeChanges
) -> tuple[Computation, PyTree[jax.ShapeDtypeStruct]]:
    """Returns what a step computes, and the shapes of its batch."""
    recipes = RECIPES[preset.name]
    if stage in ("base", "superres"):
        high = stage == "superres"
        transformer = preset.superres if high else preset.base
        recipe = changes.applied(recipes.superres if high else recipes.base)
        computation = MaskedTokensStep(transformer, recipe, execution)
        return computation, _examples(preset, high, recipe.batch_size)

    low = stage == "tokenizer-low"
    config = preset.low_tokenizer if low else preset.high_tokenizer
    recipe = changes.applied(recipes.low_tokenizer if low else recipes.high_tokenizer)
    side = config.image_size // recipes.tokenizer_crop
    images = np.broadcast_to(np.uint8(0), (recipe.batch_size, side, side, 3))
    task = TokenizerTask(
        config,
        recipe,
        recipes.tokenizer_losses,
        lambda _: images,
        resolution="low" if low else "high",
        execution=execution,
    )
    return task, jax.ShapeDtypeStruct(images.shape, images.dtype)


def _examples(preset: Preset, high: bool, batch_size: int) -> PyTree[jax.ShapeDtypeStruct]:
    base = preset.base
    text = (batch_size, base.text_length, base.text_hidden)

    def examples() -> Examples:
        return Examples(
            low=jnp.zeros((batch_size, base.tokens), jnp.int32),
            high=jnp.zeros((batch_size, preset.superres.tokens), jnp.int32) if high else None,
            text=jnp.zeros(text, jnp.float32),
            text_mask=jnp.zeros(text[:2], bool),
        )

    return jax.eval_shape(examples)
