"""Preset demo256: 256 x 256 pixels, objects in three styles; being trained on two CPU cores."""

from services.presets.definition import preset_of
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig

# The low grid is the paper's own, 16 x 16; the high one has twice its tokens along a side. Most
# channels are at low resolutions, where they cost least: the decoder has to know 768 sprites. A
# token depends on its own pixels alone: were the background a part of every token near it, each
# object would have ten sets of tokens, one a background, for a transformer to learn.
_HIGH_TOKENIZER = TokenizerConfig(
    image_size=256,
    base_channels=16,
    channel_multipliers=(1, 3, 8, 24),
    residual_blocks=1,
    encoder_kernels=(1, 1, 1, 1),
    encoder_overlaps=False,
    decoder_base_channels=16,
    decoder_residual_blocks=1,
    codebook_size=2048,
    code_dim=16,
)

# f = 4: a token of 64 px has to say a quarter of what one of 128 px has. The decoder's two residual
# blocks at 16 x 16 tokens see a whole object.
_LOW_TOKENIZER = TokenizerConfig(
    image_size=64,
    base_channels=8,
    channel_multipliers=(3, 9, 40),
    residual_blocks=2,
    encoder_kernels=(1, 1, 1),
    encoder_overlaps=False,
    decoder_base_channels=8,
    decoder_residual_blocks=2,
    codebook_size=2048,
    code_dim=16,
)

PRESET = preset_of(
    "demo256",
    text_encoder=TextEncoderConfig(
        vocabulary_size=2048, hidden=256, layers=3, heads=8, head_dim=32, mlp=512, maximum_length=64
    ),
    low_tokenizer=_LOW_TOKENIZER,
    high_tokenizer=_HIGH_TOKENIZER,
    base={"hidden": 256, "layers": 6, "heads": 4, "mlp": 1024},
    superres={"hidden": 192, "layers": 4, "low_layers": 2, "heads": 4, "mlp": 768, "block": 8},
)
