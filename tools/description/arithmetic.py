"""FLOPs of every stage's programs for one image: matrix products and convolutions.

A multiplication and an addition are two FLOPs, so [m k] @ [k n] takes 2 m k n. Norms, softmax,
activations, embeddings and the sampler are left out: they are elementwise, a percent or so beside
the products, and other units do them. Attention is counted over all positions, padding included, as
the programs compute it.
"""

from typing import NamedTuple

from services.base.config import BaseConfig
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig


class DecodeFlops(NamedTuple):
    """FLOPs of the parts of a masked decode of one image.

    Attributes:
        context: What is computed once.
        conditional: One step of the branch that hears the prompt, up to its features.
        unconditional: The same of the branch without the prompt.
        last_layer: From features to logits, once a step: guidance comes before it.
    """

    context: int
    conditional: int
    unconditional: int
    last_layer: int

    def image(self, steps: int) -> int:
        """FLOPs of `steps` steps with the paper's guidance, which is 0 at the first of several.

        At a scale of 0 the unconditional branch is not computed.
        """
        guided = max(1, steps - 1)
        return (
            self.context
            + steps * (self.conditional + self.last_layer)
            + guided * self.unconditional
        )


def product(rows: int, inner: int, columns: int) -> int:
    """FLOPs of [rows inner] @ [inner columns]."""
    return 2 * rows * inner * columns


def attention(queries: int, keys: int, width: int) -> int:
    """FLOPs of scores and mixing, over heads `width` wide in all: two products."""
    return product(queries, width, keys) + product(queries, keys, width)


def text_encoder(config: TextEncoderConfig) -> int:
    """FLOPs of one prompt of `maximum_length` tokens.

    A layer: four projections hidden x (heads head_dim), attention, three products of the gated MLP
    or two of the other one.
    """
    length, inner = config.maximum_length, config.heads * config.head_dim
    layer = (
        4 * product(length, config.hidden, inner)
        + attention(length, length, inner)
        + (3 if config.gated else 2) * product(length, config.hidden, config.mlp)
    )
    return config.layers * layer


def _self_attention(tokens: int, hidden: int, seen: int) -> int:
    """Queries, keys, values and output: 4 hidden^2; each token attends to `seen` tokens."""
    return product(tokens, hidden, 4 * hidden) + attention(tokens, seen, hidden)


def _feed_forward(tokens: int, hidden: int, mlp: int) -> int:
    return 2 * product(tokens, hidden, mlp)


def _features(config: BaseConfig | SuperresConfig, *, seen: int, context: int) -> int:
    """One branch of one step, up to what the last layer takes.

    A layer: self-attention, cross-attention (query and output: 2 hidden^2; its keys and values are
    cached) unless there is no context, MLP. The head without its last layer: hidden x hidden.
    """
    tokens, hidden = config.tokens, config.hidden
    cross = product(tokens, hidden, 2 * hidden) + attention(tokens, context, hidden)
    layer = (
        _self_attention(tokens, hidden, seen)
        + (cross if context else 0)
        + _feed_forward(tokens, hidden, config.mlp)
    )
    return config.layers * layer + product(tokens, hidden, hidden)


def _last_layer(config: BaseConfig | SuperresConfig) -> int:
    return product(config.tokens, config.hidden, config.vocabulary)


def _text_and_keys(config: BaseConfig | SuperresConfig, context: int) -> int:
    """The text's projection, and every layer's keys and values of the context."""
    projection = product(config.text_length, config.text_hidden, config.hidden)
    return projection + config.layers * product(context, config.hidden, 2 * config.hidden)


def base_decode(config: BaseConfig) -> DecodeFlops:
    """FLOPs of base: each token sees all of them, and without the prompt nothing else."""
    return DecodeFlops(
        context=_text_and_keys(config, config.text_length),
        conditional=_features(config, seen=config.tokens, context=config.text_length),
        unconditional=_features(config, seen=config.tokens, context=0),
        last_layer=_last_layer(config),
    )


def superres_decode(config: SuperresConfig) -> DecodeFlops:
    """FLOPs of superres, whose unconditional branch still sees the low-resolution tokens.

    Once: the low-resolution encoder, and keys and values of its tokens and the text. In half of the
    heads a token sees the block^2 tokens of its block, in the other half one token of each of the
    (grid / block)^2 blocks: on average half of the sum.
    """
    low, hidden = config.low_tokens, config.hidden
    low_layer = _self_attention(low, hidden, low) + _feed_forward(low, hidden, config.mlp)
    seen_twice = config.block**2 + (config.grid // config.block) ** 2
    multi_axis = config.layers * attention(config.tokens, seen_twice, hidden // 2)
    both = low + config.text_length
    return DecodeFlops(
        context=config.low_layers * low_layer + _text_and_keys(config, both),
        conditional=_features(config, seen=0, context=both) + multi_axis,
        unconditional=_features(config, seen=0, context=low) + multi_axis,
        last_layer=_last_layer(config),
    )


def convolution(side: int, kernel: int, inputs: int, outputs: int) -> int:
    """FLOPs of a square convolution with `side` x `side` outputs; padding is computed with."""
    return product(side * side, kernel * kernel * inputs, outputs)


def residual_block(side: int, inputs: int, outputs: int, kernel: int = 3) -> int:
    """FLOPs of two convolutions, and of a 1x1 shortcut if the number of channels changes."""
    shortcut = convolution(side, 1, inputs, outputs) if inputs != outputs else 0
    first = convolution(side, kernel, inputs, outputs)
    return first + convolution(side, kernel, outputs, outputs) + shortcut


def tokenizer_encode(config: TokenizerConfig) -> int:
    """FLOPs of turning one image into tokens: convolutions, and the search of the codebook."""
    widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
    side, width = config.image_size, widths[0]
    stem, halving = (3, 3) if config.encoder_overlaps else (1, 2)
    total = convolution(side, stem, 3, width)
    for level, outputs in enumerate(widths):
        if level:
            side //= 2
            total += convolution(side, halving, width, outputs)
            width = outputs
        kernel = config.encoder_kernels[level]
        total += config.residual_blocks * residual_block(side, width, outputs, kernel)
    total += convolution(side, 1, width, config.code_dim)
    return total + product(side * side, config.code_dim, config.codebook_size)


def tokenizer_decode(config: TokenizerConfig) -> int:
    """FLOPs of turning tokens into one image."""
    widths = [config.decoder_base_channels * m for m in config.channel_multipliers][::-1]
    side, width = config.grid, widths[0]
    total = convolution(side, 3, config.code_dim, width)
    for level, outputs in enumerate(widths):
        if level:
            total += convolution(side * (1 + config.repeat_first), 3, width, outputs)
            side, width = 2 * side, outputs
        total += config.decoder_residual_blocks * residual_block(side, width, outputs)
    return total + convolution(side, 3, width, 3)
