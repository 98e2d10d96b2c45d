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

from benchmarks.peers.torch_layers import (
    EPSILON,
    DecoderBlock,
    Embedding,
    Head,
    SelfAttention,
    converted,
)
from services.base.config import BaseConfig
from services.decoding.schedule import unmasked_per_step

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # not counted by default


class TorchBase(nn.Module):
    """The base transformer; its modules are named as ours are."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        hidden, heads = config.hidden, config.heads
        self.embedding = Embedding(config.vocabulary + 1, config.grid, hidden)
        self.text_projection = nn.Linear(config.text_hidden, hidden, bias=False)
        self.text_norm = nn.LayerNorm(hidden, eps=EPSILON, bias=False)
        self.blocks: Any = nn.ModuleList(
            DecoderBlock(SelfAttention(hidden, heads), hidden, heads, config.mlp)
            for _ in range(config.layers)
        )
        self.head = Head(hidden, config.vocabulary)

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

    def training_logits(
        self, tokens: Tensor, text: Tensor, text_mask: Tensor, conditional: Tensor
    ) -> Tensor:
        """Predicts every token of examples, of which `conditional` marks those with a text."""
        keys, values = self.context(text)
        gate = conditional[:, None, None].float()
        return self(tokens, keys, values, text_mask[:, None, None], gate)


class TorchDecode:
    """A network and its decode of one image."""

    def __init__(
        self,
        config: BaseConfig,
        parameters: Mapping[str, Any],
        *,
        compiled: bool,
        dtype: torch.dtype = torch.float32,
    ):
        """Builds the peer from our parameters.

        Args:
            config: Its shape.
            parameters: Of our model, by dotted name (`services.nn.parameters.parameters_of`).
            compiled: Whether everything but the choice of tokens goes through `torch.compile`.
            dtype: Of weights and arithmetic; logits and what follows them are float32.
        """
        self.config, self.network = config, TorchBase(config).eval()
        self.network.load_state_dict(converted(parameters))
        self.network.to(dtype)
        self._dtype = dtype
        propose: Any = self.propose
        self._propose = torch.compile(propose, dynamic=False) if compiled else propose

    @torch.inference_mode()
    def logits(
        self, tokens: np.ndarray, text: np.ndarray, text_mask: np.ndarray, conditional: np.ndarray
    ) -> np.ndarray:
        """Returns the logits of a batch, as our model's `context` and `logits` do."""
        keys, values = self.network.context(torch.from_numpy(text).to(self._dtype))
        mask = torch.from_numpy(text_mask)[:, None, None]
        gate = torch.from_numpy(conditional)[:, None, None].to(self._dtype)
        logits = self.network(torch.from_numpy(tokens), keys, values, mask, gate)
        return logits.float().numpy()

    def flops(self, text: np.ndarray, text_mask: np.ndarray, **parameters: Any) -> int:
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
        logits = self.network(tokens, keys, values, mask, gate).float()
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
        keys, values = self.network.context(torch.from_numpy(text)[None].to(self._dtype))
        both = [[tensor.repeat(2, 1, 1, 1) for tensor in each] for each in (keys, values)]
        mask = torch.from_numpy(text_mask)[None, None, None]
        gate = torch.tensor([1.0, 0.0], dtype=self._dtype)[:, None, None]
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
            inputs: tuple[Any, ...]
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
