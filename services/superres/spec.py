"""Specification of the superres stage for the server of services/masked."""

from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx
from muse.superres.v1 import superres_pb2

from services.masked.spec import GenerateRequest, MaskedSpec
from services.runtime.checkpoints.serialization import OWN_FAMILY
from services.runtime.wire.tensors import unpack_grid
from services.superres.config import DEFAULT_STEPS, SuperresConfig
from services.superres.model import SuperresTransformer


def _read_low_tokens(
    request: GenerateRequest, config: SuperresConfig, fingerprints: Mapping[str, str]
) -> tuple[np.ndarray]:
    """Reads the low-resolution tokens of a request, row by row."""
    assert isinstance(request, superres_pb2.GenerateRequest)  # SuperresService takes no other
    low_tokens = unpack_grid(
        request.low_tokens,
        field="low_tokens",
        codebook=fingerprints["low_codebook"],
        codebook_size=config.low_vocabulary,
        shape=(config.low_grid, config.low_grid),
    )
    return (low_tokens.reshape(-1).astype(np.int32),)


SUPERRES = MaskedSpec(
    name="superres",
    config_types={OWN_FAMILY: SuperresConfig},
    build=lambda config, dtype: SuperresTransformer(config, rngs=nnx.Rngs(0), dtype=dtype),
    sharded=lambda config: {
        "pairs of near and far heads": config.heads // 2,
        "columns of the MLP": config.mlp,
    },
    default_steps=DEFAULT_STEPS,
    response=superres_pb2.GenerateResponse,
    status_response=superres_pb2.GetStatusResponse,
    condition_shapes=lambda config: (jax.ShapeDtypeStruct((1, config.low_tokens), np.int32),),
    read_condition=_read_low_tokens,
)
