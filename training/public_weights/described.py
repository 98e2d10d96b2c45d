"""What the config.json of other libraries says of a VQGAN, as fields of `VqganConfig`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.runtime.checkpoints.errors import CheckpointMismatch
from services.tokenizer.vqgan_config import GROUPS

Fields = Mapping[str, Any]


def described_by_diffusers(fields: Fields, file: Path) -> dict[str, Any]:
    """Reads the configuration of diffusers' `VQModel`.

    Raises:
        CheckpointMismatch: it is of another class, incomplete, or of a network that is not served.

    Source: huggingface/diffusers, models/autoencoders/vq_model.py, `VQModel.__init__`.
    """
    served = {
        "_class_name": "VQModel",
        "act_fn": "silu",
        "in_channels": 3,
        "norm_num_groups": GROUPS,
        "norm_type": "group",
        "out_channels": 3,
    }
    check_fields(fields, served, file)
    channels = _wanted(fields, "block_out_channels", file)
    down = _wanted(fields, "down_block_types", file)
    up = _wanted(fields, "up_block_types", file)
    plain = [str(kind).removeprefix("Attn") for kind in (*down, *up)]
    attention = [str(kind).startswith("Attn") for kind in down]
    if (
        plain != len(down) * ["DownEncoderBlock2D"] + len(up) * ["UpDecoderBlock2D"]
        or attention != [str(kind).startswith("Attn") for kind in up][::-1]
        or len(down) != len(channels)
    ):
        raise CheckpointMismatch(
            f"{file}: expected a DownEncoderBlock2D and an UpDecoderBlock2D for each of "
            f"block_out_channels, with attention at the same resolutions, got {down} and {up}"
        )
    blocks = fields.get("layers_per_block", 1)
    latent = fields.get("latent_channels", 3)
    return {
        "stem_channels": channels[0],
        "channels": tuple(channels),
        "residual_blocks": blocks,
        "decoder_residual_blocks": blocks + 1,
        "attention_levels": tuple(level for level, has in enumerate(attention) if has),
        "middle_attention": fields.get("mid_block_add_attention", True),
        "latent_channels": latent,
        "codebook_size": fields.get("num_vq_embeddings", 256),
        "code_dim": fields.get("vq_embed_dim") or latent,
    }


def described_by_open_muse(fields: Fields, file: Path) -> dict[str, Any]:
    """Reads the configuration of open-muse's `VQGANModel`.

    Raises:
        CheckpointMismatch: it is of another class, incomplete, or of a network that is not served.

    Source: huggingface/open-muse, muse/modeling_taming_vqgan.py.
    """
    served = {"_class_name": "VQGANModel", "num_channels": 3, "resample_with_conv": True}
    check_fields(fields, served, file)
    base = fields.get("hidden_channels", 128)
    multipliers = fields.get("channel_mult", (1, 1, 2, 2, 4))
    blocks = fields.get("num_res_blocks", 2)
    size, attended = fields.get("resolution", 256), fields.get("attn_resolutions", (16,))
    levels = tuple(n for n in range(len(multipliers)) if size // 2**n in attended)
    if levels and blocks == 1:
        raise CheckpointMismatch(
            f"{file}: open-muse leaves out attention beside a single residual block, whose weights "
            "the file has all the same: expected num_res_blocks of 2 or more with "
            f"attn_resolutions {attended}"
        )
    return {
        "stem_channels": base,
        "channels": tuple(base * each for each in multipliers),
        "residual_blocks": blocks,
        "decoder_residual_blocks": blocks + 1,
        "attention_levels": levels,
        "middle_attention": not fields.get("no_attn_mid_block", False),
        "latent_channels": fields.get("z_channels", 256),
        "codebook_size": fields.get("num_embeddings", 1024),
        "code_dim": fields.get("quantized_embed_dim", 256),
    }


def check_fields(fields: Fields, served: Fields, file: Path) -> None:
    """Checks the fields that have one value in all networks that are served.

    Args:
        fields: Of config.json.
        served: That value of each, which is the library's default too.
        file: That the fields were in, for the message.

    Raises:
        CheckpointMismatch: one has another value.
    """
    for name, expected in served.items():
        found = fields.get(name, expected)
        if found != expected:
            raise CheckpointMismatch(f"{file}: expected {name} {expected!r}, got {found!r}")


def _wanted(fields: Fields, name: str, file: Path) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or not value:
        raise CheckpointMismatch(f"{file}: expected a list as {name}, got {value!r}")
    return value
