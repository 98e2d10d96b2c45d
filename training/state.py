"""What every task carries from step to step, and the average that is served."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from training.optimizers import Recipe

Parameters = dict[str, Array]


class TrainState(NamedTuple):
    """Parameters, their optimizer, and their average.

    Attributes:
        parameters: Arrays by dotted name.
        optimizer: The optimizer's own state.
        averaged: Average of the snapshots taken so far; the initial parameters before the first.
        snapshots: How many snapshots it averages.
    """

    parameters: Parameters
    optimizer: optax.OptState
    averaged: Parameters
    snapshots: Int[Array, ""]


def new_train_state(parameters: Parameters, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        parameters=parameters,
        optimizer=optimizer.init(parameters),
        averaged=jax.tree.map(jnp.copy, parameters),
        snapshots=jnp.zeros((), jnp.int32),
    )


def apply_gradients(
    state: TrainState,
    gradients: Parameters,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    step: Int[Array, ""],
) -> TrainState:
    """Applies one gradient; every `average_every` steps the average takes in a snapshot.

    The average is that of the checkpoints of every 5000 steps with decay 0.7, as the paper's
    released weights are, only computed as they come instead of from files afterwards.

    Source: Muse, section 2.8 (DESIGN 4.9).
    """
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)

    def take(operands: tuple[Parameters, Parameters]) -> Parameters:
        averaged, fresh = operands
        decay = jnp.where(state.snapshots == 0, 0.0, recipe.average_decay)
        return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, fresh)

    due = (step + 1) % recipe.average_every == 0
    averaged = jax.lax.cond(due, take, lambda operands: operands[0], (state.averaged, parameters))
    return TrainState(
        parameters=parameters,
        optimizer=optimizer_state,
        averaged=averaged,
        snapshots=state.snapshots + due,
    )


def ema_params(state: TrainState) -> Parameters:
    """Returns what is exported: the average, or the parameters if no snapshot was taken."""
    return state.averaged if int(state.snapshots) else state.parameters
