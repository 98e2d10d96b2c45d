"""The super-resolution transformer in plain PyTorch, as it is trained: the peer to beat.

The same function as services/superres/model.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.torch_layers import (
    EPSILON,
    DecoderBlock,
    Embedding,
    EncoderBlock,
    Head,
    SelfAttention,
)
from services.superres.config import SuperresConfig

# Axes of [B, H, block row, row in block, block column, column in block, K]: groups before heads,
# members after them.
WITHIN_BLOCKS = (0, 2, 4, 1, 3, 5, 6)
ACROSS_BLOCKS = (0, 3, 5, 1, 2, 4, 6)


class MultiAxisAttention(nn.Module):
    """Half of the heads attend within blocks of a square grid, the other half across blocks."""

    def __init__(self, hidden: int, heads: int, block: int) -> None:
        super().__init__()
        self.block = block
        self.attention = SelfAttention(hidden, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        halves = (heads.chunk(2, dim=1) for heads in self.attention.heads_of(tokens))
        near, far = zip(*halves, strict=True)
        attended = self._attend(near, WITHIN_BLOCKS), self._attend(far, ACROSS_BLOCKS)
        return self.attention.joined(torch.cat(attended, dim=1))

    def _attend(self, heads: tuple[Tensor, ...], order: tuple[int, ...]) -> Tensor:
        batch, count, tokens, width = heads[0].shape
        side = int(tokens**0.5)
        axis = (side // self.block, self.block)
        grid = (batch, count, *axis, *axis, width)
        grouped = [each.reshape(grid).permute(order) for each in heads]
        queries, keys, values = (each.flatten(4, 5).flatten(0, 2) for each in grouped)
        attended = F.scaled_dot_product_attention(queries, keys, values).view(grouped[0].shape)
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return attended.permute(inverse).reshape(batch, count, tokens, width)


class TorchSuperres(nn.Module):
    """The super-resolution transformer; its modules are named as ours are."""

    def __init__(self, config: SuperresConfig) -> None:
        super().__init__()
        hidden, heads, mlp = config.hidden, config.heads, config.mlp
        self.low_embedding = Embedding(config.low_vocabulary, config.low_grid, hidden)
        self.low_blocks = nn.ModuleList(
            EncoderBlock(hidden, heads, mlp) for _ in range(config.low_layers)
        )
        self.low_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.text_projection = nn.Linear(config.text_hidden, hidden, bias=False)
        self.text_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.embedding = Embedding(config.vocabulary + 1, config.grid, hidden)
        self.blocks: Any = nn.ModuleList(
            DecoderBlock(MultiAxisAttention(hidden, heads, config.block), hidden, heads, mlp)
            for _ in range(config.layers)
        )
        self.head = Head(hidden, config.vocabulary)

    def training_logits(
        self, tokens: Tensor, low: Tensor, text: Tensor, text_mask: Tensor, conditional: Tensor
    ) -> Tensor:
        """Predicts every token of examples, of which `conditional` marks those with a text."""
        low_hidden = self.low_embedding(low)
        for block in self.low_blocks:
            low_hidden = block(low_hidden)
        projected = self.text_norm(self.text_projection(text))
        context = torch.cat([self.low_norm(low_hidden), projected], dim=1)
        visible = torch.cat(
            [torch.ones_like(low, dtype=torch.bool), text_mask & conditional[:, None]], 1
        )
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden, *block.cross.keys_values(context), visible[:, None, None])
        return self.head(hidden)
