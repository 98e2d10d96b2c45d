"""Specification of a masked stage: everything in which base and superres differ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from muse.base.v1 import base_pb2
from muse.superres.v1 import superres_pb2

from services.masked.config import MaskedConfig
from services.stages import StageName

GenerateRequest = base_pb2.GenerateRequest | superres_pb2.GenerateRequest
GenerateResponse = base_pb2.GenerateResponse | superres_pb2.GenerateResponse
GetStatusRequest = base_pb2.GetStatusRequest | superres_pb2.GetStatusRequest
GetStatusResponse = base_pb2.GetStatusResponse | superres_pb2.GetStatusResponse


Config = TypeVar("Config", bound=MaskedConfig)


@dataclass(frozen=True, kw_only=True)
class MaskedSpec(Generic[Config]):
    """One masked stage, as its server needs it.

    Attributes:
        name: Name of the stage and of its checkpoint folder, such as "base".
        config_types: Configuration of each family of networks that the stage serves, by its name.
        build: Builds the `MaskedTransformer` of a configuration and a dtype.
        sharded: Counts that the devices of a mesh share evenly, such as heads, by name.
        default_steps: Decoding steps of a request that names none.
        response: The service's GenerateResponse.
        status_response: The service's GetStatusResponse.
        condition_shapes: Shapes of the inputs of the transformer's `context` before the text, of a
            single row. None by default.
        read_condition: Reads these inputs from a request, given the configuration and the
            fingerprints of the checkpoint.
    """

    name: StageName
    config_types: Mapping[str, type[Config]]
    build: Callable[[Config, DTypeLike], nnx.Module]
    sharded: Callable[[Config], Mapping[str, int]]
    default_steps: int
    response: Callable[..., GenerateResponse]
    status_response: Callable[..., GetStatusResponse]
    condition_shapes: Callable[[Config], tuple[jax.ShapeDtypeStruct, ...]] = lambda config: ()
    read_condition: Callable[
        [GenerateRequest, Config, Mapping[str, str]], tuple[np.ndarray, ...]
    ] = lambda request, config, fingerprints: ()

    def input_shapes(self, config: Config) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Returns the shapes of the inputs of the transformer's `context`, of a single row."""
        text = (1, config.text_length)
        return (
            *self.condition_shapes(config),
            jax.ShapeDtypeStruct((*text, config.text_hidden), np.float32),
            jax.ShapeDtypeStruct(text, np.bool_),
        )
