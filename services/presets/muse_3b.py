"""Preset muse-3b: the paper's largest system, 512 x 512 pixels, with T5-XXL."""

from services.presets.definition import preset_of
from services.text_encoder.config import T5_XXL
from services.tokenizer.config import TokenizerConfig

PRESET = preset_of(
    "muse-3b",
    text_encoder=T5_XXL,
    # Muse, Table 5 and appendix A.2: two residual blocks a resolution, 128 base channels, 8192
    # codes.
    low_tokenizer=TokenizerConfig(
        image_size=256,
        base_channels=128,
        channel_multipliers=(1, 1, 2, 2, 4),
        residual_blocks=2,
        encoder_kernels=(3, 3, 3, 3, 3),
        decoder_base_channels=128,
        decoder_residual_blocks=2,
        codebook_size=8192,
        code_dim=256,
    ),
    # With the fine-tuned decoder of four residual blocks and 256 base channels; encoder and
    # codebook are unchanged (Muse, sections 2.5 and A.2).
    high_tokenizer=TokenizerConfig(
        image_size=512,
        base_channels=128,
        channel_multipliers=(1, 1, 2, 4),
        residual_blocks=2,
        encoder_kernels=(3, 3, 3, 3),
        decoder_base_channels=256,
        decoder_residual_blocks=4,
        codebook_size=8192,
        code_dim=256,
    ),
    # Muse-3B, Table 4: 48 layers of 2048, 3.22 B parameters in its blocks.
    base={"hidden": 2048, "layers": 48, "heads": 16, "mlp": 8192},
    # Muse, Table 6: 0.74 B parameters.
    superres={"hidden": 1024, "layers": 32, "low_layers": 16, "heads": 16, "mlp": 4096, "block": 8},
)
