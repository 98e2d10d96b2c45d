"""A network and its slots on the device: jobs join and leave between steps, tokens come out.

Everything is compiled by `warm_up`, ahead of time; nothing compiles after it. One thread uses a
pool. Who joins when is not decided here: the scheduler of services/runtime drives it.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, Int

from services.decoding.programs import PoolPrograms, Program
from services.decoding.slots import RowState, Slots
from services.decoding.state import Row, Sampling, fresh_row, state_of
from services.nn.attention import Context
from services.nn.layers import apart
from services.nn.sharding import spread


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
    """

    inputs: tuple[np.ndarray, ...]
    opposite: tuple[np.ndarray, ...] | None
    row: Row

    @property
    def steps_left(self) -> int:
        """Steps from its start to its end."""
        return self.row.total - self.row.step

    @property
    def rows(self) -> int:
        """Rows that one of its steps computes."""
        return self.row.sampling.rows


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
        mesh: Mesh | None = None,
    ) -> None:
        """Prepares the pool; compiles nothing yet.

        Args:
            model: A `MaskedTransformer` (services/decoding/slots.py).
            inputs: Shapes of what its `context` takes, of a single row with its batch axis of 1.
            tokens: Tokens of an image.
            mask_id: The [MASK] id.
            slots: Decodes that run at a time.
            mesh: Devices to spread the network over; by default it is where its parameters are.
        """
        self.slots, self.mask_id, self.tokens = slots, mask_id, tokens
        self.device_to_host_s = 0.0  # of the last `advance`: fetching the wanted states
        graph, parameters = nnx.split(model)
        self._parameters = apart(parameters) if mesh is None else spread(parameters, mesh)
        self._inputs = tuple(inputs)
        self._programs = PoolPrograms(
            graph,
            parameters,
            inputs=inputs,
            tokens=tokens,
            mask_id=mask_id,
            slots=slots,
            mesh=mesh,
        )
        self._device_slots: Slots | None = None
        self._compiled: dict[str, Any] = {}

    def programs(self) -> dict[str, Program]:
        """Returns every program by name: a jitted function and the shapes it is called with."""
        return self._programs.all()

    def warm_up(self) -> None:
        """Compiles every program, lays out the slots and takes a step."""
        self._compiled = {
            name: program.lower(*shapes).compile()
            for name, (program, shapes) in self.programs().items()
        }
        self.reset()

    def reset(self) -> None:
        """Lays out clean slots, all free, and takes a step in one, whatever became of those before.

        Raises:
            RuntimeError: the pool was not warmed up. Whatever else: the device does not work.
        """
        if not self._compiled:
            raise RuntimeError("the pool has no programs yet: call warm_up() first")
        context = self._compiled["context"](self._parameters, *self._blanks())
        self._device_slots = self._compiled["empty"](context)
        inputs = tuple(blank[0] for blank in self._blanks())
        row = fresh_row(self.tokens, Sampling(steps=2, guidance=1.0))
        self.admit(0, Job(inputs=inputs, opposite=inputs, row=row))
        self.advance(1, [0])
        self.release(0)

    def admit(self, slot: int, job: Job) -> None:
        """Puts a job into a slot; it takes part in the next step.

        Args:
            slot: A free one, from 0.
            job: The decode.

        Raises:
            ValueError: there is no such slot, or the row is of another size or contradicts itself.
            RuntimeError: the slots are lost.
        """
        self._check(slot)
        if len(job.row.tokens) != self.tokens:
            raise ValueError(f"row: expected {self.tokens} tokens, got {len(job.row.tokens)}")
        context = self._context_of(job.inputs)
        opposite = context if job.opposite is None else self._context_of(job.opposite)
        row = state_of([job.row], mask_id=self.mask_id)
        self._device_slots = self._compiled["admit"](
            self._taken(),
            np.int32(slot),
            row,
            context,
            opposite,
            np.bool_(job.opposite is not None),
        )

    def advance(self, steps: int, wanted: Collection[int]) -> dict[int, Progress]:
        """Takes steps of every row that has some left, and waits for them.

        Args:
            steps: At most so many of each row.
            wanted: Slots to hand out afterwards.

        Raises:
            RuntimeError: the slots are lost.
        """
        slots = self._compiled["advance"](self._parameters, self._taken(), np.int32(steps))
        rows = {slot: self._compiled["read"](slots, np.int32(slot)) for slot in wanted}
        jax.block_until_ready(slots.state.step)
        self._device_slots = slots  # after the wait: a step that failed leaves none
        stepped_s = time.perf_counter()
        progress = {slot: _progress(row) for slot, row in rows.items()}
        self.device_to_host_s = time.perf_counter() - stepped_s if wanted else 0.0
        return progress

    def release(self, slot: int) -> None:
        """Frees a slot whose decode nobody wants any more; one that has ended is free already.

        Raises:
            ValueError: there is no such slot.
            RuntimeError: the slots are lost.
        """
        self._check(slot)
        self._device_slots = self._compiled["release"](self._taken(), np.int32(slot))

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot: expected 0 to {self.slots - 1}, got {slot}")

    def _taken(self) -> Slots:
        """Takes the slots out: a program that fails may have eaten their buffers."""
        slots, self._device_slots = self._device_slots, None
        if slots is None:
            raise RuntimeError("there are no slots: call warm_up() first, reset() after a failure")
        return slots

    def _context_of(self, inputs: Sequence[np.ndarray]) -> Context:
        return self._compiled["context"](self._parameters, *(array[None] for array in inputs))

    def _blanks(self) -> list[np.ndarray]:
        return [np.zeros(shape.shape, shape.dtype) for shape in self._inputs]


def _progress(row: RowState) -> Progress:
    return Progress(
        tokens=np.asarray(row.tokens),
        known=np.asarray(row.known),
        step=int(row.step),
        total=int(row.total),
    )
