"""The families of networks that the base stage serves, by the name in a checkpoint."""

from collections.abc import Mapping
from typing import TypeAlias

from flax import nnx
from jax.typing import DTypeLike

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.base.uvit import UVit
from services.base.uvit_config import UVitConfig
from services.masked.config import MaskedConfig
from services.runtime.checkpoints.serialization import OWN_FAMILY

UVIT_FAMILY = "uvit"
AnyBaseConfig: TypeAlias = BaseConfig | UVitConfig

CONFIG_TYPES: Mapping[str, type[AnyBaseConfig]] = {
    OWN_FAMILY: BaseConfig,
    UVIT_FAMILY: UVitConfig,
}


def family_of(config: MaskedConfig) -> str:
    """Returns the family of a configuration."""
    return UVIT_FAMILY if isinstance(config, UVitConfig) else OWN_FAMILY


def build_base(config: AnyBaseConfig, dtype: DTypeLike) -> BaseTransformer | UVit:
    """Builds the network of a configuration, with factors of products of a type."""
    if isinstance(config, UVitConfig):
        return UVit(config, rngs=nnx.Rngs(0), dtype=dtype)
    return BaseTransformer(config, rngs=nnx.Rngs(0), dtype=dtype)


def shared_counts(config: AnyBaseConfig) -> Mapping[str, int]:
    """Returns what the devices of a mesh share evenly; one device has all of a U-ViT."""
    if isinstance(config, UVitConfig):
        return {"device of a network of the family uvit": 1}
    return {"heads": config.heads, "columns of the MLP": config.mlp}
