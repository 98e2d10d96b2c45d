"""Specification of the base stage for the server of services/masked."""

from flax import nnx
from muse.base.v1 import base_pb2

from services.base.config import DEFAULT_STEPS, BaseConfig
from services.base.model import BaseTransformer
from services.masked.spec import MaskedSpec

BASE = MaskedSpec(
    name="base",
    config_type=BaseConfig,
    build=lambda config, dtype: BaseTransformer(config, rngs=nnx.Rngs(0), dtype=dtype),
    sharded=lambda config: {"heads": config.heads, "columns of the MLP": config.mlp},
    default_steps=DEFAULT_STEPS,
    response=base_pb2.GenerateResponse,
    status_response=base_pb2.GetStatusResponse,
)
