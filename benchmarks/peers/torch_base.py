"""The base transformer and its decode in plain PyTorch, with the same weights: the peer to beat.

The same function as services/base/model.py and services/decoding: query and key norms, cached keys
and values of the text, guidance that grows linearly, ids drawn from the guided logits, the
scheduled number of most confident tokens kept. Written the way PyTorch is written: fused
`scaled_dot_product_attention`, both branches of guidance as one batch of two, a Python loop over
the steps, inference mode. Where the scale of guidance is 0 (the first step) it computes one branch,
as ours does. Draws differ, since the sources of noise do; without noise the tokens are the same.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from services.base.config import BaseConfig
from services.decoding.schedule import unmasked_per_step

EPSILON = 1e-6
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # not counted by default


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
        batch, count, hidden = tokens.shape
        split = self.project(tokens).view(batch, count, 3, self.heads, self.width)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            self.query_norm(queries), self.key_norm(keys), values
        )
        return self.output(attended.transpose(1, 2).reshape(batch, count, hidden))


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


class Block(nn.Module):
    """Self-attention, cross-attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.attention_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.attention = SelfAttention(hidden, config.heads)
        self.cross_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.cross = CrossAttention(hidden, config.heads)
        self.mlp_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.mlp = FeedForward(hidden, config.mlp)

    def forward(
        self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor, gate: Tensor
    ) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        tokens = tokens + gate * self.cross(self.cross_norm(tokens), keys, values, mask)
        return tokens + self.mlp(self.mlp_norm(tokens))


class Embedding(nn.Module):
    """An embedding of the id, of its row and of its column."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(config.vocabulary + 1, config.hidden))
        self.row = nn.Parameter(torch.empty(config.grid, config.hidden))
        self.column = nn.Parameter(torch.empty(config.grid, config.hidden))

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.row[:, None] + self.column[None, :]
        return F.embedding(ids, self.token) + positions.flatten(0, 1)


class Head(nn.Module):
    """An MLP from the residual stream to one logit per code."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.input_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.mix = nn.Linear(hidden, hidden, bias=False)
        self.output_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.output = nn.Linear(hidden, config.vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = F.gelu(self.mix(self.input_norm(tokens)), approximate="tanh")
        return self.output(self.output_norm(mixed))


class TorchBase(nn.Module):
    """The base transformer; its modules are named as ours are."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.embedding = Embedding(config)
        self.text_projection = nn.Linear(config.text_hidden, config.hidden, bias=False)
        self.text_norm = nn.LayerNorm(config.hidden, eps=EPSILON, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)

    def context(self, text: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Returns every layer's keys and values of a text [B T Dt]."""
        projected = self.text_norm(self.text_projection(text))
        pairs = [block.cross.keys_values(projected) for block in self.blocks]
        return [keys for keys, _ in pairs], [values for _, values in pairs]

    def forward(
        self,
        tokens: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        mask: Tensor,
        gate: Tensor,
    ) -> Tensor:
        """Predicts every token; rows whose gate is 0 hear nothing of the text."""
        hidden = self.embedding(tokens)
        for block, key, value in zip(self.blocks, keys, values, strict=True):
            hidden = block(hidden, key, value, mask, gate)
        return self.head(hidden)


class TorchDecode:
    """A network and its decode of one image."""

    def __init__(self, config: BaseConfig, parameters: Mapping[str, Any], *, compiled: bool):
        """Builds the peer from our parameters.

        Args:
            config: Its shape.
            parameters: Of our model, by dotted name (`services.nn.parameters.parameters_of`).
            compiled: Whether everything but the choice of tokens goes through `torch.compile`.
        """
        self.config, self.network = config, TorchBase(config).eval()
        self.network.load_state_dict(converted(parameters))
        self._propose = torch.compile(self.propose, dynamic=False) if compiled else self.propose

    @torch.inference_mode()
    def logits(
        self, tokens: np.ndarray, text: np.ndarray, text_mask: np.ndarray, conditional: np.ndarray
    ) -> np.ndarray:
        """Returns the logits of a batch, as our model's `context` and `logits` do."""
        keys, values = self.network.context(torch.from_numpy(text))
        mask = torch.from_numpy(text_mask)[:, None, None]
        gate = torch.from_numpy(conditional)[:, None, None].float()
        return self.network(torch.from_numpy(tokens), keys, values, mask, gate).numpy()

    def flops(self, text: np.ndarray, text_mask: np.ndarray, **parameters: float) -> int:
        """Returns the FLOPs of an image as PyTorch counts them: products and attention.

        Args:
            text: As of `image`.
            text_mask: As of `image`.
            parameters: Of `image`.
        """

        counted = {CPU_ATTENTION: attention_flops}
        with FlopCounterMode(display=False, custom_mapping=counted) as counter:
            self.image(text, text_mask, **parameters)
        return counter.get_total_flops()

    def propose(
        self,
        tokens: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        mask: Tensor,
        gate: Tensor,
        scale: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Draws an id at every place of one image, with its log-probability.

        Args:
            tokens: [B N]: one row without guidance, two with it.
            keys: Of every layer, [B H T K].
            values: The same.
            mask: [B 1 1 T].
            gate: [B 1 1], 1 and 0.
            scale: Of guidance.
            temperature: 0 takes the likeliest.
        """
        logits = self.network(tokens, keys, values, mask, gate)
        cond, uncond = logits[0], logits[-1]  # of a single row, the same
        logits = torch.lerp(uncond, cond, 1 + scale)  # (1+t) cond - t uncond
        if temperature == 0:
            ids = logits.argmax(-1, keepdim=True)
        else:
            ids = torch.multinomial(F.softmax(logits / temperature, dim=-1), 1)
        return ids[:, 0], F.log_softmax(logits, dim=-1).gather(-1, ids)[:, 0]

    @torch.inference_mode()
    def image(
        self,
        text: np.ndarray,
        text_mask: np.ndarray,
        *,
        steps: int,
        guidance_scale: float,
        temperature: float = 1.0,
        choice_temperature: float = 4.5,
    ) -> np.ndarray:
        """Decodes an image's tokens.

        Args:
            text: [T Dt].
            text_mask: [T], True where there is text.
            steps: Decoding steps.
            guidance_scale: Scale of the last step; it grows linearly from 0.
            temperature: Of sampling ids.
            choice_temperature: Scale of the Gumbel noise on confidences, fading to 0.
        """
        keys, values = self.network.context(torch.from_numpy(text)[None])
        both = [[tensor.repeat(2, 1, 1, 1) for tensor in each] for each in (keys, values)]
        mask = torch.from_numpy(text_mask)[None, None, None]
        gate = torch.tensor([1.0, 0.0])[:, None, None]
        count = self.config.tokens
        tokens = torch.full((count,), self.config.vocabulary)
        known = torch.zeros(count, dtype=torch.bool)
        revealed = unmasked_per_step(count, steps)
        for step, reveal in enumerate(revealed):
            scale = (
                guidance_scale * step / max(len(revealed) - 1, 1)
                if len(revealed) > 1
                else guidance_scale
            )
            if scale:
                inputs = tokens.repeat(2, 1), *both, mask.repeat(2, 1, 1, 1), gate
            else:
                inputs = tokens[None], keys, values, mask, gate[:1]
            ids, confidence = self._propose(*inputs, torch.tensor(scale), temperature)
            noise = -torch.empty(count).exponential_().log_()
            confidence = confidence + choice_temperature * (1 - (step + 1) / len(revealed)) * noise
            kept = confidence.masked_fill(known, -torch.inf).topk(reveal).indices
            tokens[kept] = ids[kept]
            known[kept] = True
        return tokens.numpy()


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Returns the FLOPs of attention over tensors of these shapes."""
    return sdpa_flop_count(query, key, value)


def converted(parameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns our parameters under PyTorch's names: kernels turned over, layers taken apart."""
    state: dict[str, Tensor] = {}
    for name, value in parameters.items():
        array = np.asarray(value, np.float32)
        theirs = name.removesuffix(".norm.scale").removesuffix(".scale").removesuffix(".kernel")
        theirs += "" if theirs == name else ".weight"
        if name.endswith(".kernel"):
            array = np.swapaxes(array, -1, -2)
        if not name.startswith("blocks."):
            state[theirs] = torch.from_numpy(array.copy())
            continue
        for layer, part in enumerate(array):
            inner = theirs.removeprefix("blocks.")
            state[f"blocks.{layer}.{inner}"] = torch.from_numpy(part.copy())
    return state
