"""A network and its slots on the device: jobs go in, tokens come out.

Everything is compiled by `warm_up`, ahead of time; nothing compiles after it. One thread uses a
pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int

from services.decoding import slots as slot_programs
from services.decoding.slots import Slots
from services.decoding.state import (
    DecodeState,
    Row,
    Sampling,
    fresh_row,
    resting_state,
    state_of,
)
from services.nn.attention import Context

ALL_STEPS = np.int32(2**31 - 1)


class MaskedTransformer(Protocol):
    """What base and superres have in common."""

    def context(self, *inputs: Array) -> Context:
        """Makes the context of some rows, once a decode."""

    def logits(self, tokens: Array, context: Context, conditional: Array) -> Array:
        """Predicts every token."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A decode after one of its steps.

    Attributes:
        tokens: Ids; [MASK] where still unknown.
        known: Tokens revealed so far.
        step: Steps taken.
        total: Steps of the whole decode.
    """

    tokens: Int[np.ndarray, " N"]
    known: Bool[np.ndarray, " N"]
    step: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One decode to run.

    Attributes:
        inputs: What the network's `context` takes, each for a single row and without a batch axis.
        opposite: The same with the negative prompt; None leaves the other branch unconditional.
        row: The decode's start.
        on_step: Called on the device thread after every step, if it wants to look.
    """

    inputs: tuple[np.ndarray, ...]
    opposite: tuple[np.ndarray, ...] | None
    row: Row
    on_step: Callable[[Progress], None] | None = None


class DecodePool:
    """The slots of one network, and the programs that fill and advance them."""

    def __init__(
        self,
        model: nnx.Module,
        *,
        inputs: Sequence[jax.ShapeDtypeStruct],
        tokens: int,
        mask_id: int,
        slots: int,
        group: int,
    ) -> None:
        """Prepares the pool; compiles nothing yet.

        Args:
            model: A `MaskedTransformer`.
            inputs: Shapes of what its `context` takes, of a single row with its batch axis of 1.
            tokens: Tokens of an image.
            mask_id: The [MASK] id.
            slots: Decodes that run at a time.
            group: Rows computed together, a divisor of `slots`. The same picture comes out of
                every batch for any group; another group may round differently.
        """
        self.slots, self.mask_id, self.tokens = slots, mask_id, tokens
        self._graph, self._parameters = nnx.split(model)
        self._inputs, self._group = tuple(inputs), group
        self._device_slots: Slots | None = None
        self._compiled: dict[str, Any] = {}

    def programs(self) -> dict[str, tuple[Any, tuple[Any, ...]]]:
        """Returns every program by name: a jitted function and the shapes it is called with."""
        parameters = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._parameters
        )
        context = jax.eval_shape(self._context, parameters, *self._inputs)
        slots = jax.eval_shape(slot_programs.empty_slots, self._resting(), context)
        row = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self._example_row()))
        number = jax.ShapeDtypeStruct((), jnp.int32)
        flag = jax.ShapeDtypeStruct((), jnp.bool_)
        return {
            "context": (jax.jit(self._context), (parameters, *self._inputs)),
            "admit": (
                jax.jit(slot_programs.admit, donate_argnums=0),
                (slots, number, row, context, context, flag),
            ),
            "advance": (
                jax.jit(self._advance, donate_argnums=1),
                (parameters, slots, number),
            ),
        }

    def warm_up(self) -> None:
        """Compiles every program, lays out the slots and runs one step through them."""
        self._compiled = {
            name: program.lower(*shapes).compile()
            for name, (program, shapes) in self.programs().items()
        }
        blanks = [np.zeros(shape.shape, shape.dtype) for shape in self._inputs]
        context = self._compiled["context"](self._parameters, *blanks)
        self._device_slots = slot_programs.empty_slots(self._resting(), context)
        sampling = Sampling(steps=1, guidance=0.0)
        self.decode(
            [
                Job(
                    inputs=tuple(blank[0] for blank in blanks),
                    opposite=None,
                    row=fresh_row(self.tokens, sampling),
                )
            ]
        )

    def decode(self, jobs: Sequence[Job]) -> list[Progress]:
        """Runs jobs to their end, together.

        All steps are taken by one program unless a job looks in after each.

        Args:
            jobs: At most as many as there are slots.

        Raises:
            ValueError: there are more jobs than slots.
            RuntimeError: the pool was not warmed up.
        """
        if len(jobs) > self.slots:
            raise ValueError(f"{len(jobs)} decodes do not fit into {self.slots} slots")
        if self._device_slots is None:
            raise RuntimeError("the pool has no slots yet: call warm_up() before decode()")
        slots, self._device_slots = self._device_slots, None
        try:
            for index, job in enumerate(jobs):
                slots = self._admitted(slots, index, job)
            watched = any(job.on_step for job in jobs)
            steps = [job.row.step for job in jobs]
            while True:
                slots = self._compiled["advance"](
                    self._parameters, slots, np.int32(1) if watched else ALL_STEPS
                )
                rows = _progress(slots.state, len(jobs))
                for index, (job, row) in enumerate(zip(jobs, rows, strict=True)):
                    if job.on_step and row.step > steps[index]:
                        job.on_step(row)
                    steps[index] = row.step
                if all(row.step >= row.total for row in rows):
                    return rows
        finally:
            # A failed decode may leave rows unfinished or buffers donated: start from clean slots.
            self._device_slots = slots if _at_rest(slots) else self._fresh_slots()

    def _admitted(self, slots: Slots, index: int, job: Job) -> Slots:
        make = partial(self._compiled["context"], self._parameters)
        context = make(*(array[None] for array in job.inputs))
        opposite = context
        if job.opposite is not None:
            opposite = make(*(array[None] for array in job.opposite))
        row = state_of([job.row], mask_id=self.mask_id)
        return self._compiled["admit"](
            slots, np.int32(index), row, context, opposite, np.bool_(job.opposite is not None)
        )

    def _fresh_slots(self) -> Slots:
        blanks = [np.zeros(shape.shape, shape.dtype) for shape in self._inputs]
        context = self._compiled["context"](self._parameters, *blanks)
        return slot_programs.empty_slots(self._resting(), context)

    def _resting(self) -> DecodeState:
        return resting_state(self.slots, self.tokens, mask_id=self.mask_id)

    def _example_row(self) -> DecodeState:
        return resting_state(1, self.tokens, mask_id=self.mask_id)

    def _model(self, parameters: Any) -> Any:
        return nnx.merge(self._graph, parameters)

    def _context(self, parameters: Any, *inputs: Array) -> Context:
        return self._model(parameters).context(*inputs)

    def _advance(self, parameters: Any, slots: Slots, limit: Array) -> Slots:
        return slot_programs.advance(
            slots,
            limit,
            self._model(parameters).logits,
            mask_id=self.mask_id,
            group=self._group,
        )


def _progress(state: DecodeState, count: int) -> list[Progress]:
    tokens, known, step, total = (
        np.asarray(array)[:count] for array in (state.tokens, state.known, state.step, state.total)
    )
    return [
        Progress(tokens=tokens[i], known=known[i], step=int(step[i]), total=int(total[i]))
        for i in range(count)
    ]


def _at_rest(slots: Slots) -> bool:
    if any(leaf.is_deleted() for leaf in jax.tree.leaves(slots)):
        return False
    return bool(np.all(np.asarray(slots.state.step) >= np.asarray(slots.state.total)))
