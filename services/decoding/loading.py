"""From a checkpoint's parameters to a pool on the devices of a layout."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from services.decoding.memory import check_memory
from services.decoding.pool import DecodePool
from services.decoding.programs import SLOTS, PoolPrograms
from services.decoding.serving import Layout
from services.nn.quantization import keeping, with_weights
from services.nn.sharding import bytes_on_each, check_divides, divisions, model_mesh


def load_pool(
    build: Callable[[], nnx.Module],
    parameters: Mapping[str, np.ndarray],
    *,
    layout: Layout,
    divided: Mapping[str, int],
    inputs: Sequence[jax.ShapeDtypeStruct],
    tokens: int,
    mask_id: int,
) -> DecodePool:
    """Makes a pool around given parameters, after a check that its devices have room for it.

    Args:
        build: Makes a `MaskedTransformer`; only its shapes are used.
        parameters: Arrays by dotted path; exactly those it has.
        layout: Devices, slots and precision.
        divided: What several devices divide among them, by name.
        inputs: Shapes of what its `context` takes, of a single row.
        tokens: Tokens of an image.
        mask_id: The [MASK] id.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
        NotEnoughMemory: weights and slots are more than the memory there is.
        ValueError: there are fewer devices than the layout has, or they divide something unevenly.
    """
    mesh = model_mesh(layout.shards)
    check_divides(layout.shards, divided)
    graph, shapes = nnx.split(nnx.eval_shape(keeping(build, layout.weights)))
    one = PoolPrograms(
        graph, shapes, inputs=inputs, tokens=tokens, mask_id=mask_id, slots=1, mesh=mesh
    )
    check_memory(
        weights=bytes_on_each(divisions(shapes), shapes, layout.shards, dtype=layout.dtype),
        slot=bytes_on_each(SLOTS, one.slots(), layout.shards),
        slots=layout.slots,
        devices=jax.local_devices()[: layout.shards],
    )
    # The parts of several devices are cut on the host: one alone may not hold the whole.
    array = jnp.asarray if mesh is None else np.asarray
    return DecodePool(
        with_weights(build, parameters, dtype=layout.dtype, weights=layout.weights, array=array),
        inputs=inputs,
        tokens=tokens,
        mask_id=mask_id,
        slots=layout.slots,
        mesh=mesh,
    )
