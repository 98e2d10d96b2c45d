"""The tokenizer in plain PyTorch, as it is trained: the peer to beat.

The same function as services/tokenizer/model.py, and those losses of
training/tasks/tokenizer_losses.py that need no other network. Written the way PyTorch is written:
`nn.Conv2d`, of which oneDNN chooses the algorithm.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.tokenizer.config import TokenizerConfig
from training.tasks.tokenizer_losses import FAINT_EDGES, TokenizerLosses

EPSILON = 1e-6


def _with_border(features: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Repeats the border. PyTorch 2.13 cannot compile the gradient of its own padding of pictures
    whose channels come last: it takes its layout for another one.
    """
    if not torch.compiler.is_compiling():
        return F.pad(features, (left, right, top, bottom), mode="replicate")
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        first, last = features.narrow(axis, 0, 1), features.narrow(axis, -1, 1)
        features = torch.cat([*[first] * before, features, *[last] * after], dim=axis)
    return features


class Convolution(nn.Conv2d):
    """A convolution that pads an image by repeating its border; a stride of 2 halves the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        before = int(kernel == 3 and stride == 1)
        self.margin = (before, 1, before, 1) if kernel == 3 else None

    def forward(self, features: Tensor) -> Tensor:
        if self.margin is not None:
            features = _with_border(features, *self.margin)
        return super().forward(features)


class Normalise(nn.LayerNorm):
    """Layer normalisation of each pixel's channels, then swish."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        return F.silu(super().forward(features.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two normalised convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.first_norm = Normalise(inputs)
        self.first = Convolution(inputs, outputs, kernel)
        self.second_norm = Normalise(outputs)
        self.second = Convolution(outputs, outputs, kernel)
        self.shortcut = Convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        residual = self.second(self.second_norm(self.first(self.first_norm(features))))
        return self.shortcut(features) + residual


class Upsample(nn.Module):
    """Doubles the size by repeating pixels, before or after a convolution."""

    def __init__(self, inputs: int, outputs: int, *, repeat_first: bool) -> None:
        super().__init__()
        self.repeat_first = repeat_first
        self.project = Convolution(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        if self.repeat_first:
            return self.project(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return F.interpolate(self.project(features), scale_factor=2.0, mode="nearest")


class Coder(nn.Module):
    """A stem, layers, a norm and a head: the encoder or the decoder."""

    def __init__(self, stem: nn.Module, layers: list[nn.Module], norm: nn.Module, head: nn.Module):
        super().__init__()
        self.stem, self.layers = stem, nn.Sequential(*layers)
        self.head_norm, self.head = norm, head

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.head_norm(self.layers(self.stem(features))))


def encoder_of(config: TokenizerConfig) -> Coder:
    """Returns the encoder, full resolution first."""
    channels = [config.base_channels * each for each in config.channel_multipliers]
    stem, halving = (3, 3) if config.encoder_overlaps else (1, 2)
    layers: list[nn.Module] = []
    width = channels[0]
    for level, outputs in enumerate(channels):
        if level:
            layers.append(Convolution(width, outputs, halving, stride=2))
            width = outputs
        for _ in range(config.residual_blocks):
            layers.append(ResidualBlock(width, outputs, config.encoder_kernels[level]))
    return Coder(
        Convolution(3, channels[0], stem),
        layers,
        Normalise(width),
        Convolution(width, config.code_dim, 1),
    )


def decoder_of(config: TokenizerConfig) -> Coder:
    """Returns the decoder, lowest resolution first."""
    channels = [config.decoder_base_channels * each for each in config.channel_multipliers][::-1]
    layers: list[nn.Module] = []
    width = channels[0]
    for level, outputs in enumerate(channels):
        if level:
            layers.append(Upsample(width, outputs, repeat_first=config.repeat_first))
            width = outputs
        for _ in range(config.decoder_residual_blocks):
            layers.append(ResidualBlock(width, outputs))
    stem = Convolution(config.code_dim, channels[0])
    return Coder(stem, layers, Normalise(width), Convolution(width, 3))


class Quantizer(nn.Module):
    """A codebook."""

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(codes, dim))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the nearest code [B h w C] of each feature."""
        with torch.no_grad():
            half_norms = 0.5 * self.codebook.square().sum(-1)
            ids = (half_norms - features.flatten(0, 2) @ self.codebook.T).argmin(-1)
        return F.embedding(ids.view(features.shape[:3]), self.codebook)


class TorchTokenizer(nn.Module):
    """A VQGAN; its modules are named as ours are."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.encoder = encoder_of(config)
        self.quantizer = Quantizer(config.codebook_size, config.code_dim)
        self.decoder = decoder_of(config)

    def loss(self, images: Tensor, losses: TokenizerLosses) -> Tensor:
        """Returns the sum of the losses of images [B 3 h w] in [-1, 1]."""
        features = self.encoder(images).permute(0, 2, 3, 1)
        codes = self.quantizer(features)
        straight = features + (codes - features).detach()
        error = self.decoder(straight.permute(0, 3, 1, 2)) - images
        pixels = error.abs().mean() + error.square().mean()
        edges = (squared_edges(error) / (squared_edges(images) + FAINT_EDGES)).mean()
        commitment = F.mse_loss(features, codes.detach())
        codebook = F.mse_loss(codes, features.detach())
        return pixels + losses.edges * edges + losses.commitment * commitment + codebook


def squared_edges(images: Tensor) -> Tensor:
    """Returns each image's mean squared difference between neighbours, summed over both axes."""
    down, along = images.diff(dim=2), images.diff(dim=3)
    return down.square().mean((1, 2, 3)) + along.square().mean((1, 2, 3))


def converted(parameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns our parameters under PyTorch's names, kernels with outputs and inputs first."""
    state: dict[str, Tensor] = {}
    for name, value in parameters.items():
        array = np.asarray(value, np.float32)
        if name.endswith(".kernel"):
            array = array.transpose(3, 2, 0, 1)
        theirs = name.replace(".norm.scale", ".weight").replace(".norm.bias", ".bias")
        state[theirs.replace(".kernel", ".weight")] = torch.from_numpy(array.copy())
    return state
