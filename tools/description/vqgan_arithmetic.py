"""FLOPs of a published VQGAN for one image, counted as in `tools.description.arithmetic`."""

from services.tokenizer.vqgan_config import VqganConfig
from tools.description.arithmetic import attention, convolution, product, residual_block


def vqgan_encode(config: VqganConfig) -> int:
    """FLOPs of turning one image into tokens: the encoder, and the search of the codebook."""
    side, width = config.image_size, config.stem_channels
    total = convolution(side, 3, 3, width)
    for level, outputs in enumerate(config.channels):
        total += _level(config, level, side, width, config.residual_blocks)
        width = outputs
        if level < len(config.channels) - 1:
            side //= 2
            total += convolution(side, 3, width, width)
    total += _middle(config) + convolution(side, 3, width, config.latent_channels)
    total += convolution(side, 1, config.latent_channels, config.code_dim)
    return total + product(side * side, config.code_dim, config.codebook_size)


def vqgan_decode(config: VqganConfig) -> int:
    """FLOPs of turning tokens into one image."""
    side, width = config.grid, config.channels[-1]
    total = convolution(side, 1, config.code_dim, config.latent_channels)
    total += convolution(side, 3, config.latent_channels, width) + _middle(config)
    for level in reversed(range(len(config.channels))):
        total += _level(config, level, side, width, config.decoder_residual_blocks)
        width = config.channels[level]
        if level:
            side *= 2
            total += convolution(side, 3, width, width)
    return total + convolution(side, 3, width, 3)


def _level(config: VqganConfig, level: int, side: int, inputs: int, blocks: int) -> int:
    outputs = config.channels[level]
    first = residual_block(side, inputs, outputs)
    others = (blocks - 1) * residual_block(side, outputs, outputs)
    attended = blocks if level in config.attention_levels else 0
    return first + others + attended * _attention(side, outputs)


def _middle(config: VqganConfig) -> int:
    side, width = config.grid, config.channels[-1]
    attended = _attention(side, width) if config.middle_attention else 0
    return 2 * residual_block(side, width, width) + attended


def _attention(side: int, width: int) -> int:
    """FLOPs of query, key, value and output, and of attention of all positions to each other."""
    return 4 * convolution(side, 1, width, width) + attention(side * side, side * side, width)
