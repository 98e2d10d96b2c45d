"""What every task carries from step to step: parameters and their optimizer."""

from typing import NamedTuple

import optax

from training.optimizers import Parameters


class TrainState(NamedTuple):
    """The parameters of one network and the state of its optimizer.

    Attributes:
        params: Arrays by dotted name.
        opt_state: The optimizer's own state.
    """

    params: Parameters
    opt_state: optax.OptState


def new_train_state(params: Parameters, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(params, optimizer.init(params))


def apply_gradients(
    state: TrainState, gradients: Parameters, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state after one optimizer step."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state)
