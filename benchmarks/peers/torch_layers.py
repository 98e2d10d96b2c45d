"""The layers of both transformers in plain PyTorch; modules are named as ours are.

Attention is PyTorch's fused `scaled_dot_product_attention`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.nn.stacks import STACKS

EPSILON = 1e-6


class SelfAttention(nn.Module):
    """Every position to every position."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, hidden // heads
        self.project = nn.Linear(hidden, 3 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.query_norm = nn.RMSNorm(self.width, eps=EPSILON)
        self.key_norm = nn.RMSNorm(self.width, eps=EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.joined(F.scaled_dot_product_attention(*self.heads_of(tokens)))

    def heads_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values [B H N K], queries and keys normalised."""
        batch, count, _ = tokens.shape
        split = self.project(tokens).view(batch, count, 3, self.heads, self.width)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        return self.query_norm(queries), self.key_norm(keys), values

    def joined(self, attended: Tensor) -> Tensor:
        """Projects the heads' outputs [B H N K] back to the width of the tokens."""
        return self.output(attended.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Image positions to a text whose keys and values are made once."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, hidden // heads
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key_value = nn.Linear(hidden, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.query_norm = nn.RMSNorm(self.width, eps=EPSILON)
        self.key_norm = nn.RMSNorm(self.width, eps=EPSILON)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, _ = text.shape
        split = self.key_value(text).view(batch, count, 2, self.heads, self.width)
        keys, values = split.permute(2, 0, 3, 1, 4)
        return self.key_norm(keys), values

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        batch, count, hidden = tokens.shape
        queries = self.query(tokens).view(batch, count, self.heads, self.width).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            self.query_norm(queries), keys, values, attn_mask=mask
        )
        return self.output(attended.transpose(1, 2).reshape(batch, count, hidden))


class FeedForward(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden, width, bias=False)
        self.contract = nn.Linear(width, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(tokens), approximate="tanh"))


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, hidden: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.attention = SelfAttention(hidden, heads)
        self.mlp_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.mlp = FeedForward(hidden, mlp)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, attention: nn.Module, hidden: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.attention = attention
        self.cross_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.cross = CrossAttention(hidden, heads)
        self.mlp_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.mlp = FeedForward(hidden, mlp)

    def forward(
        self,
        tokens: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        gate: Tensor | float = 1.0,
    ) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        tokens = tokens + gate * self.cross(self.cross_norm(tokens), keys, values, mask)
        return tokens + self.mlp(self.mlp_norm(tokens))


class Embedding(nn.Module):
    """An embedding of the id, of its row and of its column."""

    def __init__(self, ids: int, grid: int, hidden: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(ids, hidden))
        self.row = nn.Parameter(torch.empty(grid, hidden))
        self.column = nn.Parameter(torch.empty(grid, hidden))

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.row[:, None] + self.column[None, :]
        return F.embedding(ids, self.token) + positions.flatten(0, 1)


class Head(nn.Module):
    """An MLP from the residual stream to one logit per code."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.mix = nn.Linear(hidden, hidden, bias=False)
        self.output_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = F.gelu(self.mix(self.input_norm(tokens)), approximate="tanh")
        return self.output(self.output_norm(mixed))


def converted(parameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns our parameters under PyTorch's names: kernels turned over, layers taken apart."""
    state: dict[str, Tensor] = {}
    for name, value in parameters.items():
        array = np.asarray(value, np.float32)
        theirs = name.removesuffix(".norm.scale").removesuffix(".scale").removesuffix(".kernel")
        theirs += "" if theirs == name else ".weight"
        if name.endswith(".kernel"):
            array = np.swapaxes(array, -1, -2)
        stack, _, inner = theirs.partition(".")
        if stack not in STACKS:
            state[theirs] = torch.from_numpy(array.copy())
            continue
        for layer, part in enumerate(array):
            state[f"{stack}.{layer}.{inner}"] = torch.from_numpy(part.copy())
    return state
