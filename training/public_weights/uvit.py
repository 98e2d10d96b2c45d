"""aMUSEd's transformer as diffusers writes it: its configuration, and the names of its tensors.

Source: huggingface/diffusers, models/unets/uvit_2d.py, models/attention.py.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from services.base.families import build_base
from services.base.uvit_config import UVitConfig
from services.runtime.checkpoints.documents import config_of
from services.runtime.checkpoints.errors import CheckpointMismatch
from training.public_weights.conversion import Tensors
from training.public_weights.described import check_fields
from training.public_weights.renaming import as_kernel, renamed

MICRO_CONDITIONS = 5  # width, height, crop from the top and from the left, aesthetic score
# Field of config.json, ours, and its default in diffusers.
FIELDS = (
    ("sample_size", "grid", 64),
    ("codebook_size", "vocabulary", 8192),
    ("hidden_size", "hidden", 1024),
    ("num_hidden_layers", "layers", 22),
    ("num_attention_heads", "heads", 16),
    ("intermediate_size", "mlp", 2816),
    ("encoder_hidden_size", "text_hidden", 768),
    ("in_channels", "embedding", 768),
    ("block_out_channels", "channels", 768),
    ("block_num_heads", "block_heads", 12),
    ("num_res_blocks", "blocks", 3),
    ("downsample", "halved", False),
    ("micro_cond_encode_dim", "condition_width", 256),
)


def uvit_config(
    fields: Mapping[str, Any], file: Path, *, image_size: int, positions: int
) -> UVitConfig:
    """Reads the configuration of diffusers' `UVit2DModel`.

    Args:
        fields: Of config.json.
        file: That they were in, for messages.
        image_size: Side in pixels of the pictures.
        positions: Positions of a text, padding included.

    Raises:
        CheckpointMismatch: it is of another class, or of a network that is not served.
    """
    served = {
        "_class_name": "UVit2DModel",
        "use_bias": False,
        "layer_norm_eps": 1e-6,
        "ln_elementwise_affine": True,
    }
    check_fields(fields, served, file)
    found = {ours: fields.get(theirs, default) for theirs, ours, default in FIELDS}
    found |= {"image_size": image_size, "text_length": positions + 1}
    config = config_of(UVitConfig, found, file)
    of_others = {  # each has one value, given the fields above
        "upsample": (config.halved, False),
        "cond_embed_dim": (config.text_hidden, 768),
        "micro_cond_embed_dim": (MICRO_CONDITIONS * config.condition_width, 1280),
    }
    for name, (expected, default) in of_others.items():
        if (got := fields.get(name, default)) != expected:
            raise CheckpointMismatch(f"{file}: expected {name} {expected!r}, got {got!r}")
    return config


def uvit_parameters(
    tensors: Tensors, config: UVitConfig, *, rows: int, mask_id: int, source: Path
) -> dict[str, np.ndarray]:
    """Returns the parameters of a `UVit` but its `no_text`, in float32, by dotted path.

    Args:
        tensors: By diffusers' names; exactly those of the network.
        config: Its configuration.
        rows: Rows of its token embedding, of which those of the codes and of [MASK] are kept.
        mask_id: The row of [MASK].
        source: Where the tensors were read from, for messages.

    Raises:
        CheckpointMismatch: a tensor is missing, unknown, or of another shape.
        CheckpointDamaged: a value is infinite or NaN.
    """
    names = {
        **WHOLE_NAMES,
        **_within("blocks", LAYER_NAMES, "transformer_layers"),
        **_within("down_blocks", BLOCK_NAMES, "down_block"),
        **_within("up_blocks", BLOCK_NAMES, "up_block"),
        **(HALVED_NAMES if config.halved else {}),
    }

    def codes_and_mask(tensor: np.ndarray) -> np.ndarray:
        if len(tensor) != rows:
            raise ValueError(f"{len(tensor)} rows")
        return np.concatenate([tensor[: config.vocabulary], tensor[mask_id][None]])

    return renamed(
        tensors,
        names,
        partial(build_base, config, jnp.float32),
        source,
        turns={**TURNS, "tokens": codes_and_mask},
    )


def _within(ours: str, names: Mapping[str, str], theirs: str) -> dict[str, str]:
    """Returns the names of a stack's parameters and tensors."""
    return {
        f"{ours}.{part}": " ".join(f"{theirs}.{name}" for name in each.split())
        for part, each in names.items()
    }


def _halving(tensor: np.ndarray) -> np.ndarray:
    """A convolution of squares of four, [out in 2 2], as a matrix from all that is in a square."""
    return as_kernel(tensor).reshape(-1, len(tensor))


def _doubling(tensor: np.ndarray) -> np.ndarray:
    """A transposed convolution, [in out 2 2], as a matrix to all that is in a square."""
    return tensor.transpose(0, 2, 3, 1).reshape(len(tensor), -1)


def _flat(tensor: np.ndarray) -> np.ndarray:
    return tensor.reshape(-1)


TURNS = {
    "depthwise.kernel": as_kernel,
    "halving.project.kernel": _halving,
    "doubling.project.kernel": _doubling,
    "response_norm.scale": _flat,
    "response_norm.shift": _flat,
}
WHOLE_NAMES = {
    "text_projection.kernel": "encoder_proj.weight",
    "text_norm.scale": "encoder_proj_layer_norm.weight",
    "condition_in.kernel": "cond_embed.linear_1.weight",
    "condition_out.kernel": "cond_embed.linear_2.weight",
    "tokens": "embed.embeddings.weight",
    "token_norm.scale": "embed.layer_norm.weight",
    "token_projection.kernel": "embed.conv.weight",
    "input_norm.scale": "project_to_hidden_norm.weight",
    "input.kernel": "project_to_hidden.weight",
    "output_norm.scale": "project_from_hidden_norm.weight",
    "output.kernel": "project_from_hidden.weight",
    "head.kernel": "mlm_layer.conv1.weight",
    "head_norm.scale": "mlm_layer.layer_norm.weight",
    "logits_of_head.kernel": "mlm_layer.conv2.weight",
}
HALVED_NAMES = {
    "halving.norm.scale": "down_block.downsample.norm.weight",
    "halving.project.kernel": "down_block.downsample.conv.weight",
    "doubling.norm.scale": "up_block.upsample.norm.weight",
    "doubling.project.kernel": "up_block.upsample.conv.weight",
}
LAYER_NAMES = {
    "attention_norm.scale": "{layer}.norm1.norm.weight",
    "attention_adapt.kernel": "{layer}.norm1.linear.weight",
    "attention.project.kernel": "{layer}.attn1.to_q.weight {layer}.attn1.to_k.weight "
    "{layer}.attn1.to_v.weight",
    "attention.output.kernel": "{layer}.attn1.to_out.0.weight",
    "cross_norm.scale": "{layer}.norm2.norm.weight",
    "cross_adapt.kernel": "{layer}.norm2.linear.weight",
    "cross.query.kernel": "{layer}.attn2.to_q.weight",
    "cross.key_value.kernel": "{layer}.attn2.to_k.weight {layer}.attn2.to_v.weight",
    "cross.output.kernel": "{layer}.attn2.to_out.0.weight",
    "mlp_norm.norm.scale": "{layer}.norm3.norm.weight",
    "mlp_adapt.kernel": "{layer}.norm3.linear.weight",
    "expand.kernel": "{layer}.ff.net.0.proj.weight",
    "contract.kernel": "{layer}.ff.net.2.weight",
}
BLOCK_NAMES = {
    "depthwise.kernel": "res_blocks.{layer}.depthwise.weight",
    "norm.scale": "res_blocks.{layer}.norm.weight",
    "expand.kernel": "res_blocks.{layer}.channelwise_linear_1.weight",
    "response_norm.scale": "res_blocks.{layer}.channelwise_norm.gamma",
    "response_norm.shift": "res_blocks.{layer}.channelwise_norm.beta",
    "contract.kernel": "res_blocks.{layer}.channelwise_linear_2.weight",
    "adapt.kernel": "res_blocks.{layer}.cond_embeds_mapper.weight",
    "text.kernel": "attention_blocks.{layer}.kv_mapper.weight",
    "first_norm.scale": "attention_blocks.{layer}.norm1.weight",
    "first.query.kernel": "attention_blocks.{layer}.attn1.to_q.weight",
    "first.key_value.kernel": "attention_blocks.{layer}.attn1.to_k.weight "
    "attention_blocks.{layer}.attn1.to_v.weight",
    "first.output.kernel": "attention_blocks.{layer}.attn1.to_out.0.weight",
    "second_norm.scale": "attention_blocks.{layer}.norm2.weight",
    "second.query.kernel": "attention_blocks.{layer}.attn2.to_q.weight",
    "second.key_value.kernel": "attention_blocks.{layer}.attn2.to_k.weight "
    "attention_blocks.{layer}.attn2.to_v.weight",
    "second.output.kernel": "attention_blocks.{layer}.attn2.to_out.0.weight",
}
