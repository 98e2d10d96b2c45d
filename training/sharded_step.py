"""A training step compiled for the devices of a mesh."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Int

from training.mesh import Execution, state_shardings

State = Any  # a pytree of arrays; each task has its own
Batch = Any  # a pytree of numpy arrays


class Computation(Protocol):
    """What a step computes."""

    @property
    def given(self) -> Mapping[str, np.ndarray]:
        """Returns parameters to start from by name; those it lacks are drawn at random."""

    def initial_state(self, given: Mapping[str, Array]) -> State:
        """Returns the state before the first step; compiled."""

    def train_step(
        self, state: State, batch: Batch, step: Int[Array, ""], phase: str
    ) -> tuple[State, Mapping[str, Array]]:
        """Takes one optimizer step; returns the new state and scalars to report. Compiled."""


class ShardedStep:
    """The compiled `train_step` of a computation; a call takes the memory of the state it is given.

    Attributes:
        shardings: Of the state.
        template: Shapes of the state, with their shardings.
    """

    def __init__(self, computation: Computation, execution: Execution) -> None:
        """Prepares the step; each phase is compiled when it first comes.

        Args:
            computation: What a step computes.
            execution: The devices.
        """
        shapes = jax.eval_shape(computation.initial_state, computation.given)
        self.shardings = state_shardings(shapes, execution.mesh)
        self.template = jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(
                shape.shape, shape.dtype, sharding=sharding
            ),
            shapes,
            self.shardings,
        )
        self._step: Any = jax.jit(
            computation.train_step,
            static_argnums=3,
            in_shardings=(self.shardings, execution.by_rows, None),
            out_shardings=(self.shardings, execution.replicated),
            donate_argnums=0,
        )

    def __call__(
        self, state: State, batch: Batch, step: int, phase: str
    ) -> tuple[State, Mapping[str, Array]]:
        """Takes a step; returns the new state and scalars to report."""
        return self._step(state, batch, step, phase)

    def trace(self, state: State, batch: Batch, step: Any, phase: str) -> jax.stages.Traced:
        """Traces a step of a state and a batch, or of their shapes, and computes nothing."""
        return self._step.trace(state, batch, step, phase)
