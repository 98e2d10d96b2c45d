"""Preset demo: 128 x 128 pixels, trained on two CPU cores; its checkpoint is in the repository."""

from dataclasses import replace

from services.presets.definition import preset_of
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig

# Low and high resolution share one shape. Few channels at full resolution, where a convolution
# costs most.
_LOW_TOKENIZER = TokenizerConfig(
    image_size=64,
    base_channels=16,
    channel_multipliers=(1, 2, 4, 12),
    residual_blocks=1,
    encoder_kernels=(3, 1, 1, 1),
    decoder_base_channels=16,
    decoder_residual_blocks=1,
    codebook_size=1024,
    code_dim=16,
    repeat_first=False,
)

PRESET = preset_of(
    "demo",
    # Trained on the demo's captions, whose words are the whole vocabulary.
    text_encoder=TextEncoderConfig(
        vocabulary_size=1024, hidden=192, layers=3, heads=6, head_dim=32, mlp=384, maximum_length=64
    ),
    low_tokenizer=_LOW_TOKENIZER,
    high_tokenizer=replace(_LOW_TOKENIZER, image_size=128),
    base={"hidden": 256, "layers": 5, "heads": 8, "mlp": 1024},
    superres={"hidden": 192, "layers": 4, "low_layers": 2, "heads": 6, "mlp": 768, "block": 8},
)
