"""aMUSEd-256 as diffusers ships it, with random weights: `AmusedPipeline` and its own loop.

Its sizes are those of the published checkpoint (Patil et al. 2024, "aMUSEd"): a U-ViT of 603 M
parameters and a VQGAN of 146 M, a text of 77 x 768 with a pooled vector of 768.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.operators import import_torchvision
from benchmarks.peers.torch_base import CPU_ATTENTION, attention_flops

TEXT_LENGTH, TEXT_HIDDEN, GRID, MASK_ID = 77, 768, 16, 8255
PUBLISHED: Mapping[str, Any] = {
    "transformer": {},  # diffusers' defaults are the published ones
    "tokenizer": {"block_out_channels": (128, 256, 256, 512, 768), "layers_per_block": 2},
}
SMALL: Mapping[str, Any] = {
    "transformer": {
        "hidden_size": 64,
        "in_channels": 64,
        "block_out_channels": 64,
        "block_num_heads": 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "tokenizer": {"block_out_channels": (32,) * 5, "layers_per_block": 1},
}


class AmusedDecode:
    """A pipeline that is handed the text's embedding."""

    def __init__(self, shapes: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> None:
        """Builds it.

        Args:
            shapes: PUBLISHED or SMALL.
            dtype: Of weights and arithmetic.
        """
        import_torchvision()
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        from diffusers import AmusedPipeline, AmusedScheduler, UVit2DModel, VQModel

        transformer = UVit2DModel(sample_size=GRID, **shapes["transformer"])
        self.transformer = transformer.to(dtype).eval()
        tokenizer = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 5,
            up_block_types=("UpDecoderBlock2D",) * 5,
            latent_channels=64,
            num_vq_embeddings=8192,
            mid_block_add_attention=False,
            lookup_from_codebook=True,
            **shapes["tokenizer"],
        )
        self.tokenizer = tokenizer.to(dtype).eval()
        self._pipeline: Any = AmusedPipeline(
            vqvae=self.tokenizer,
            tokenizer=None,
            text_encoder=None,
            transformer=self.transformer,
            scheduler=AmusedScheduler(mask_token_id=MASK_ID),
        )
        self._pipeline.set_progress_bar_config(disable=True)
        random = torch.Generator().manual_seed(0)
        self._text = torch.randn(2, 1, TEXT_LENGTH, TEXT_HIDDEN, generator=random).to(dtype)
        self._pooled = torch.randn(2, 1, TEXT_HIDDEN, generator=random).to(dtype)

    @property
    def parameters(self) -> int:
        """Of the transformer."""
        return sum(parameter.numel() for parameter in self.transformer.parameters())

    def image(self, *, steps: int, guidance_scale: float) -> np.ndarray:
        """Makes an image, decoded.

        Args:
            steps: Its `num_inference_steps`.
            guidance_scale: Muse's scale t; diffusers' `guidance_scale` is 1 + t.
        """
        made = self._pipeline(
            prompt_embeds=self._pooled[0],
            encoder_hidden_states=self._text[0],
            negative_prompt_embeds=self._pooled[1],
            negative_encoder_hidden_states=self._text[1],
            num_inference_steps=steps,
            guidance_scale=1 + guidance_scale,
            output_type="np",
        )
        return made.images[0]

    def flops(self, *, steps: int, guidance_scale: float) -> int:
        """Returns the FLOPs of an image as PyTorch counts them: products, convolutions, attention.

        Counted over one step and over two, since all steps cost the same.

        Args:
            steps: As of `image`.
            guidance_scale: As of `image`.
        """
        one, two = (self._counted(steps=each, guidance_scale=guidance_scale) for each in (1, 2))
        return one + (steps - 1) * (two - one)

    def _counted(self, *, steps: int, guidance_scale: float) -> int:
        counted = {CPU_ATTENTION: attention_flops}
        with FlopCounterMode(display=False, custom_mapping=counted) as counter:
            self.image(steps=steps, guidance_scale=guidance_scale)
        return counter.get_total_flops()
