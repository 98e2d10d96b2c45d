"""A tokenizer that compiles in seconds."""

from dataclasses import replace

import pytest

from services.presets import preset
from services.presets.definition import Preset
from services.tokenizer.config import TokenizerConfig


@pytest.fixture(scope="session")
def small_tokenizer() -> TokenizerConfig:
    """Two resolutions of one block of 8 channels."""
    return replace(
        preset("tiny").low_tokenizer,
        channel_multipliers=(1, 1),
        encoder_kernels=(3, 3),
        codebook_size=16,
        code_dim=4,
    )


@pytest.fixture(scope="session")
def small_preset(small_tokenizer: TokenizerConfig) -> Preset:
    """The preset `tiny` with that tokenizer at the low resolution."""
    return replace(preset("tiny"), low_tokenizer=small_tokenizer)
