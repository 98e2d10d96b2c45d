"""Preset tiny: the smallest system that runs, for tests."""

from dataclasses import replace

from services.presets.definition import preset_of
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig

_LOW_TOKENIZER = TokenizerConfig(
    image_size=16,
    base_channels=8,
    channel_multipliers=(1, 2, 2),
    residual_blocks=1,
    encoder_kernels=(3, 3, 1),
    decoder_base_channels=8,
    decoder_residual_blocks=1,
    codebook_size=32,
    code_dim=8,
)

PRESET = preset_of(
    "tiny",
    text_encoder=TextEncoderConfig(
        vocabulary_size=512, hidden=16, layers=1, heads=2, head_dim=8, mlp=32, maximum_length=32
    ),
    low_tokenizer=_LOW_TOKENIZER,
    high_tokenizer=replace(_LOW_TOKENIZER, image_size=32),
    base={"hidden": 16, "layers": 1, "heads": 2, "mlp": 32},
    superres={"hidden": 16, "layers": 1, "low_layers": 1, "heads": 2, "mlp": 32, "block": 4},
)
