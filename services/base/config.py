"""Configuration of the base transformer, over the low-resolution token grid."""

from dataclasses import dataclass

from services.masked.config import MaskedConfig

DEFAULT_STEPS = 24  # Muse, section 2.8


@dataclass(frozen=True, kw_only=True)
class BaseConfig(MaskedConfig):
    """The base masked transformer (Muse, section 2.3 and Table 4)."""
