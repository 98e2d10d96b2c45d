"""Specification of the base stage for the server of services/masked."""

from muse.base.v1 import base_pb2

from services.base.config import DEFAULT_STEPS
from services.base.families import CONFIG_TYPES, AnyBaseConfig, build_base, shared_counts
from services.masked.spec import MaskedSpec

BASE = MaskedSpec[AnyBaseConfig](
    name="base",
    config_types=CONFIG_TYPES,
    build=build_base,
    sharded=shared_counts,
    default_steps=DEFAULT_STEPS,
    response=base_pb2.GenerateResponse,
    status_response=base_pb2.GetStatusResponse,
)
