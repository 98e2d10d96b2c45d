"""A network and its slots on the device: decodes join and leave between steps.

`warm_up` compiles everything ahead of time; nothing compiles after it. One thread uses a pool. The
scheduler of services/runtime decides when a decode joins.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from services.decoding.adapters import NO_ADAPTERS, AdapterScales
from services.decoding.programs import CompiledPrograms, pool_programs
from services.decoding.slots import Progress, Slots
from services.decoding.state import Row, Sampling, fresh_row, state_of
from services.nn.compiling import with_formats
from services.nn.sharding import shard
from services.nn.stacks import unstack


@dataclass(frozen=True, kw_only=True)
class DecodeRequest:
    """One decode to run.

    Attributes:
        inputs: Inputs of the network's `context`, of a single row and without a batch axis.
        negative_inputs: The inputs with the negative prompt in place of the prompt; None guides
            away from no text.
        row: Start of the decode.
        adapters: Weight of each adapter to apply, by its name.
    """

    inputs: tuple[np.ndarray, ...]
    negative_inputs: tuple[np.ndarray, ...] | None
    row: Row
    adapters: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps_left(self) -> int:
        """Steps from the start of the decode to its end."""
        return self.row.total - self.row.step

    @property
    def rows(self) -> int:
        """Rows that one step of the decode computes: 2 with guidance, 1 without."""
        return self.row.sampling.rows


class DecodePool:
    """The slots of one network, and the programs that fill and advance them.

    Attributes:
        slots: Decodes that run at a time.
        rows_at_once: Decodes that one call of the network computes.
        mask_id: The [MASK] id.
        tokens: Tokens of an image.
        adapters: Scales of the adapters that a decode may use.
        parameters: The network's parameters, as the programs take them.
        programs: The programs before they are compiled.
        compiled: The compiled programs; None before `warm_up`.
        device_to_host_s: Seconds in which the last `advance` fetched states from the device.
    """

    def __init__(
        self,
        model: nnx.Module,
        *,
        inputs: Sequence[jax.ShapeDtypeStruct],
        tokens: int,
        mask_id: int,
        slots: int,
        adapters: AdapterScales = NO_ADAPTERS,
        mesh: Mesh | None = None,
        rows_at_once: int = 1,
    ) -> None:
        """Prepares the slots of a `MaskedTransformer`; compiles nothing yet.

        The transformer has the factors whose scales are `adapters` (services/nn/low_rank.py).
        The other arguments are those of `pool_programs`.
        """
        self.slots, self.rows_at_once = slots, rows_at_once
        self.mask_id, self.tokens = mask_id, tokens
        self.adapters = adapters
        self.device_to_host_s = 0.0
        graph, parameters = nnx.split(model)
        self.parameters = unstack(parameters) if mesh is None else shard(parameters, mesh)
        self.programs = pool_programs(
            graph,
            parameters,
            inputs=inputs,
            tokens=tokens,
            mask_id=mask_id,
            slots=slots,
            adapter_rank=adapters.rank,
            mesh=mesh,
            rows_at_once=rows_at_once,
        )
        self.compiled: CompiledPrograms | None = None
        self._blank = tuple(np.zeros(shape.shape[1:], shape.dtype) for shape in inputs)
        self._device_slots: Slots | None = None

    def warm_up(self) -> None:
        """Compiles every program, makes the slots and takes a step."""
        self.compiled = self.programs.compile()
        if self.compiled.parameter_formats is not None:
            self.parameters = with_formats(self.parameters, self.compiled.parameter_formats)
        self.reset()

    def reset(self) -> None:
        """Replaces all slots by idle ones, and takes a step to prove that the device works.

        Raises:
            RuntimeError: the pool was not warmed up. Any other exception: the device fails.
        """
        compiled = self._warm()
        self._device_slots = compiled.empty(self._context(self._blank, self.adapters.of({})))
        row = fresh_row(self.tokens, Sampling(steps=2, guidance_scale=1.0))
        self.admit(0, DecodeRequest(inputs=self._blank, negative_inputs=self._blank, row=row))
        self.advance(1, [0])
        self.release(0)

    def admit(self, slot: int, request: DecodeRequest, progress: Progress | None = None) -> None:
        """Puts a decode into an idle slot; it takes part in the next step.

        Args:
            slot: The slot.
            request: The decode.
            progress: Its state to go on from, of `advance`; None begins at the request's row.

        Raises:
            ValueError: there is no such slot, or the row has another number of tokens or
                contradicts itself.
            KeyError: there is no such adapter.
            RuntimeError: a failed program has lost the slots.
        """
        self._check(slot)
        row = request.row
        if len(row.tokens) != self.tokens:
            raise ValueError(f"row: expected {self.tokens} tokens, got {len(row.tokens)}")
        if progress is not None:
            row = replace(row, tokens=progress.tokens, known=progress.known, step=progress.step)
        scale = self.adapters.of(request.adapters)
        context = negative_context = self._context(request.inputs, scale)
        if request.negative_inputs is not None:
            negative_context = self._context(request.negative_inputs, scale)
        self._device_slots = self._warm().admit(
            self._taken(),
            np.int32(slot),
            state_of([row], mask_id=self.mask_id),
            context,
            negative_context,
            np.bool_(request.negative_inputs is not None),
            scale,
        )

    def advance(
        self, steps: int, wanted: Collection[int], resting: Collection[int] = ()
    ) -> dict[int, Progress]:
        """Advances active slots by at most `steps` steps, and waits for the result.

        Args:
            steps: Their number.
            wanted: Slots to return the state of.
            resting: Slots that take no step.

        Returns:
            The state of each wanted slot.

        Raises:
            RuntimeError: a failed program has lost the slots.
        """
        compiled = self._warm()
        rests = np.isin(np.arange(self.slots), list(resting))
        slots = compiled.advance(self.parameters, self._taken(), np.int32(steps), rests)
        states = {slot: compiled.read(slots, np.int32(slot)) for slot in wanted}
        jax.block_until_ready(slots.state.step)
        self._device_slots = slots  # after the wait: a step that fails leaves none
        stepped_s = time.perf_counter()
        progress = {
            slot: Progress(np.asarray(tokens), np.asarray(known), int(step), int(total))
            for slot, (tokens, known, step, total) in states.items()
        }
        self.device_to_host_s = time.perf_counter() - stepped_s if wanted else 0.0
        return progress

    def release(self, slot: int) -> None:
        """Makes the slot of an abandoned decode idle; a decode that ends frees its slot itself.

        Raises:
            ValueError: there is no such slot.
            RuntimeError: a failed program has lost the slots.
        """
        self._check(slot)
        self._device_slots = self._warm().release(self._taken(), np.int32(slot))

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot: expected 0 to {self.slots - 1}, got {slot}")

    def _warm(self) -> CompiledPrograms:
        if self.compiled is None:
            raise RuntimeError("the pool has no compiled programs yet: call warm_up() first")
        return self.compiled

    def _taken(self) -> Slots:
        """Takes the slots out of the pool: a program that fails may have overwritten them."""
        slots, self._device_slots = self._device_slots, None
        if slots is None:
            raise RuntimeError("there are no slots: call warm_up() first, reset() after a failure")
        return slots

    def _context(
        self, inputs: Sequence[np.ndarray], scale: Float[np.ndarray, " R"]
    ) -> PyTree[Array]:
        return self._warm().context(self.parameters, scale, *(array[None] for array in inputs))
