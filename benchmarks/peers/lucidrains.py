"""`muse-maskgit-pytorch` as its author ships it, at the shape nearest to ours.

What differs from ours: its attention has a null key and value and l2-normalised queries and keys;
its MLP is gated (GEGLU with two thirds of 4x the width, about as many operations); its logits are a
single linear layer; the text's keys and values are made anew at every step; without the prompt it
still computes cross-attention, to the null key alone; guidance has one scale at all steps; ids are
drawn from the top tenth of the codes at a falling temperature. Its weights are its own, random.
The picture is not decoded.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.peers.operators import import_torchvision
from services.base.config import BaseConfig

TEXT_ENCODER = "random"  # stands for a T5, which is not part of what is timed


class LucidrainsDecode:
    """A MaskGit of `muse-maskgit-pytorch`, asked for tokens."""

    def __init__(self, config: BaseConfig, *, flash: bool) -> None:
        """Builds it with random weights.

        Args:
            config: The shape to come near to.
            flash: Its own switch: tiled attention in Python (its default), or a plain product.
        """
        import_torchvision()
        from muse_maskgit_pytorch import (
            MaskGit,
            MaskGitTransformer,
            VQGanVAE,
            muse_maskgit_pytorch,
        )
        from muse_maskgit_pytorch.t5 import T5_CONFIGS
        from tqdm import tqdm

        muse_maskgit_pytorch.tqdm = partial(tqdm, disable=True)  # else it draws a bar an image
        T5_CONFIGS[TEXT_ENCODER] = {"config": SimpleNamespace(d_model=config.text_hidden)}
        transformer = MaskGitTransformer(
            num_tokens=config.vocabulary,
            seq_len=config.tokens,
            dim=config.hidden,
            depth=config.layers,
            dim_head=config.hidden // config.heads,
            heads=config.heads,
            ff_mult=config.mlp // config.hidden,
            t5_name=TEXT_ENCODER,
            flash=flash,
        )
        tokenizer = VQGanVAE(dim=16, codebook_size=config.vocabulary, use_vgg_and_gan=False)
        self._maskgit: Any = MaskGit(
            image_size=16 * config.grid, transformer=transformer, vae=tokenizer
        )
        self._maskgit.vae.decode_from_ids = lambda ids: ids

    def image(self, text: np.ndarray, *, steps: int, guidance_scale: float) -> np.ndarray:
        """Generates an image's tokens.

        Args:
            text: [T Dt], zero where there is padding.
            steps: Its `timesteps`.
            guidance_scale: Our scale t; its `cond_scale` is 1 + t.
        """
        embedding = torch.from_numpy(text)[None]
        self._maskgit.transformer.encode_text = lambda texts: embedding
        ids = self._maskgit.generate(
            texts=["prompt"], timesteps=steps, cond_scale=1 + guidance_scale
        )
        return ids.flatten().numpy()
