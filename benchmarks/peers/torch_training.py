"""Training steps in plain PyTorch, with our shapes, precision and losses: the peers to beat."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from benchmarks.peers import torch_layers, torch_tokenizer
from benchmarks.peers.torch_base import TorchBase
from benchmarks.peers.torch_superres import TorchSuperres
from benchmarks.peers.torch_tokenizer import TorchTokenizer
from services.base.config import BaseConfig
from services.superres.config import SuperresConfig
from services.tokenizer.config import TokenizerConfig
from training.optimizers import Parameters, Recipe
from training.tasks.frozen import Examples
from training.tasks.masking import TEXT_DROPOUT
from training.tasks.tokenizer_losses import TokenizerLosses


class MaskedTokensTwin:
    """The training of the base or of the super-resolution transformer on one batch.

    The optimizer is PyTorch's own Adafactor, which has no running mean of gradients. Precision
    bfloat16 is `torch.autocast`.
    """

    def __init__(
        self,
        config: BaseConfig | SuperresConfig,
        recipe: Recipe,
        parameters: Parameters,
        examples: Examples,
        *,
        compiled: bool,
    ) -> None:
        """Builds the network.

        Args:
            config: Shape of the transformer.
            recipe: Its optimizer and precision.
            parameters: Of our transformer, to start from.
            examples: The batch.
            compiled: Whether the loss goes through `torch.compile`.
        """
        self.network: Any = (
            TorchSuperres(config) if isinstance(config, SuperresConfig) else TorchBase(config)
        )
        self.network.load_state_dict(torch_layers.converted(parameters))
        self._optimizer = torch.optim.Adafactor(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._bf16, self._mask_id = recipe.precision == "bfloat16", config.vocabulary
        low, text, text_mask = (
            torch.from_numpy(np.array(each))
            for each in (examples.low, examples.text, examples.text_mask)
        )
        # The base predicts the low-resolution tokens; superres sees them.
        seen, targets = ((), low) if examples.high is None else ((low,), np.array(examples.high))
        self._inputs, self._targets = (*seen, text, text_mask), torch.as_tensor(targets).long()
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def _loss(self, hidden: Tensor, conditional: Tensor) -> Tensor:
        """Returns the mean loss of the hidden tokens [B N], with a text where conditional [B]."""
        tokens = torch.where(hidden, self._mask_id, self._targets)
        with torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext():
            logits = self.network.training_logits(tokens, *self._inputs, conditional)
        losses = F.cross_entropy(logits.float().transpose(1, 2), self._targets, reduction="none")
        return (losses * hidden).sum() / hidden.sum()

    def step(self) -> None:
        """Takes one step with masks drawn anew."""
        batch, count = self._targets.shape
        ratio = torch.cos(torch.rand(batch, 1) * torch.pi / 2)
        hidden = torch.rand(batch, count).argsort(-1).argsort(-1) < ratio * count
        self._optimizer.zero_grad()
        self.loss(hidden, torch.rand(batch) >= TEXT_DROPOUT).backward()
        self._optimizer.step()


class TokenizerTwin:
    """The training of a tokenizer on one batch, in float32, without the upkeep of the codebook."""

    def __init__(
        self,
        config: TokenizerConfig,
        recipe: Recipe,
        losses: TokenizerLosses,
        parameters: Parameters,
        images: UInt8[np.ndarray, "B h w 3"],
        *,
        compiled: bool,
    ) -> None:
        """Builds the network.

        Args:
            config: Shape of the tokenizer.
            recipe: Its optimizer.
            losses: Weights of the losses.
            parameters: Of our tokenizer, to start from.
            images: The batch.
            compiled: Whether the loss goes through `torch.compile`.
        """
        network: Any = TorchTokenizer(config)
        network.load_state_dict(torch_tokenizer.converted(parameters))
        self.network = network.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.first_decay, recipe.second_decay),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self._losses = losses
        self._images = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)  # channels last
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def _loss(self) -> Tensor:
        """Returns the sum of the losses."""
        return self.network.loss(self._images.float() / 127.5 - 1, self._losses)

    def step(self) -> None:
        """Takes one step, its gradients clipped as ours are."""
        self._optimizer.zero_grad()
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
