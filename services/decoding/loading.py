"""Loading of a checkpoint's parameters into a pool on the devices of a serving configuration."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from services.decoding.adapters import adapter_scales, factors_side_by_side
from services.decoding.memory import check_memory
from services.decoding.pool import DecodePool
from services.decoding.programs import pool_programs, slot_specs
from services.decoding.serving import ServingConfig
from services.nn.low_rank import with_adapters
from services.nn.quantization import with_weight_format, with_weights
from services.nn.sharding import bytes_per_device, check_divides, model_mesh, partition_specs
from services.runtime.checkpoints.adapters import Adapter


def load_pool(
    build: Callable[[], nnx.Module],
    parameters: Mapping[str, np.ndarray],
    *,
    serving: ServingConfig,
    sharded: Mapping[str, int],
    inputs: Sequence[jax.ShapeDtypeStruct],
    tokens: int,
    mask_id: int,
    adapters: Mapping[str, Adapter],
) -> DecodePool:
    """Makes a pool around given parameters, after checking that its devices have enough memory.

    Args:
        build: Builds a `MaskedTransformer`; only its shapes are used.
        parameters: Arrays by dotted path; exactly those the transformer has.
        serving: Devices, slots and precision.
        sharded: Counts that the devices share evenly, such as heads, by name.
        inputs, tokens, mask_id: As of `pool_programs`.
        adapters: Adapters that a decode may use, by name.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
        NotEnoughMemory: weights and slots need more memory than is free.
        ValueError: the host has fewer devices than `serving` asks for, or they cannot share a count
            evenly.
    """
    mesh = model_mesh(serving.shards)
    check_divides(serving.shards, sharded)
    build_served = with_weight_format(build, serving.weights)
    factors, scales = factors_side_by_side(adapters), adapter_scales(adapters)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: with_adapters(build_served(), factors)))
    single = pool_programs(
        graph,
        shapes,
        inputs=inputs,
        tokens=tokens,
        mask_id=mask_id,
        slots=1,
        adapter_rank=scales.rank,
        mesh=mesh,
    )
    specs = partition_specs(shapes)
    check_memory(
        weights=bytes_per_device(specs, shapes, serving.shards, dtype=serving.dtype),
        slot=bytes_per_device(slot_specs(single.slots), single.slots, serving.shards),
        slots=serving.slots,
        devices=jax.local_devices()[: serving.shards],
    )
    # Parameters of several devices are sharded on the host: one device may not hold all of them.
    array = jnp.asarray if mesh is None else np.asarray
    dtype, weights = serving.dtype, serving.weights
    model = with_weights(build, parameters, dtype=dtype, weights=weights, array=array)
    return DecodePool(
        with_adapters(model, factors, dtype=dtype, array=array),
        inputs=inputs,
        tokens=tokens,
        mask_id=mask_id,
        slots=serving.slots,
        adapters=scales,
        mesh=mesh,
        rows_at_once=serving.rows_at_once,
    )
