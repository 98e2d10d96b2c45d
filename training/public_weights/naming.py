"""Names of a VQGAN's tensors in the layouts of other libraries, and its shape read off them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from services.runtime.checkpoints.errors import CheckpointMismatch

Shapes = Mapping[str, tuple[int, ...]]
CODEBOOK = "quantize.embedding.weight"


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Where a layout keeps the parts of encoder and decoder, as templates.

    In a template, `level` counts resolutions from the full one, `depth` from the lowest one, and
    `index` counts the blocks of a resolution; `side` is "encoder" or "decoder".

    Attributes:
        encoder_block: A residual block of the encoder.
        encoder_attention: Attention after it.
        downsample: Convolution that halves the size after a level.
        decoder_block: A residual block of the decoder.
        decoder_attention: Attention after it.
        upsample: Convolution that follows the doubling of the size after a level.
        middle_first: First residual block in the middle.
        middle_attention: Attention in the middle.
        middle_second: Second residual block in the middle.
        head_norm: The last normalisation.
        block: Parts of a residual block.
        attention: Parts of an attention.
    """

    encoder_block: str
    encoder_attention: str
    downsample: str
    decoder_block: str
    decoder_attention: str
    upsample: str
    middle_first: str
    middle_attention: str
    middle_second: str
    head_norm: str
    block: Mapping[str, str]
    attention: Mapping[str, str]

    def name_of(self, ours: str, levels: int) -> str:
        """Returns the name that a parameter of `Vqgan` has in this layout.

        Args:
            ours: Its dotted path, such as "encoder.levels.0.blocks.1.first.kernel".
            levels: Number of resolutions.
        """
        if ours == "quantizer.codebook":
            return CODEBOOK
        *path, kind = ours.split(".")
        side, part, *rest = path
        ending = "bias" if kind == "bias" else "weight"
        if part in ("to_codes", "from_codes"):
            return f"{'' if part == 'to_codes' else 'post_'}quant_conv.{ending}"
        if part == "levels":
            return f"{self._in_level(side, rest, levels)}.{ending}"
        if part == "middle":
            where, inner = rest
            template: str = getattr(self, f"middle_{where}")
            parts = self.attention if where == "attention" else self.block
            return f"{template.format(side=side)}.{parts[inner]}.{ending}"
        names = {"stem": "conv_in", "head": "conv_out", "head_norm": self.head_norm}
        return f"{side}.{names[part]}.{ending}"

    def _in_level(self, side: str, rest: list[str], levels: int) -> str:
        place, kind, *inner = rest
        level = int(place) if side == "encoder" else levels - 1 - int(place)
        where = {"level": level, "depth": levels - 1 - level}
        if kind == "resample":
            return (self.downsample if side == "encoder" else self.upsample).format(**where)
        index, part = inner
        one = kind.removesuffix("s")  # "block" of "blocks"
        template: str = getattr(self, f"{side}_{one}")
        parts: Mapping[str, str] = getattr(self, one)
        return f"{template.format(index=index, **where)}.{parts[part]}"


TAMING = Naming(
    encoder_block="encoder.down.{level}.block.{index}",
    encoder_attention="encoder.down.{level}.attn.{index}",
    downsample="encoder.down.{level}.downsample.conv",
    decoder_block="decoder.up.{level}.block.{index}",
    decoder_attention="decoder.up.{level}.attn.{index}",
    upsample="decoder.up.{level}.upsample.conv",
    middle_first="{side}.mid.block_1",
    middle_attention="{side}.mid.attn_1",
    middle_second="{side}.mid.block_2",
    head_norm="norm_out",
    block={
        "first_norm": "norm1",
        "first": "conv1",
        "second_norm": "norm2",
        "second": "conv2",
        "shortcut": "nin_shortcut",
    },
    attention={"norm": "norm", "query": "q", "key": "k", "value": "v", "output": "proj_out"},
)
"""Source: CompVis/taming-transformers, taming/modules/diffusionmodules/model.py. The same names are
in CompVis/latent-diffusion and in huggingface/open-muse, muse/modeling_taming_vqgan.py."""

LLAMAGEN = Naming(
    encoder_block="encoder.conv_blocks.{level}.res.{index}",
    encoder_attention="encoder.conv_blocks.{level}.attn.{index}",
    downsample="encoder.conv_blocks.{level}.downsample.conv",
    decoder_block="decoder.conv_blocks.{depth}.res.{index}",
    decoder_attention="decoder.conv_blocks.{depth}.attn.{index}",
    upsample="decoder.conv_blocks.{depth}.upsample.conv",
    middle_first="{side}.mid.0",
    middle_attention="{side}.mid.1",
    middle_second="{side}.mid.2",
    head_norm="norm_out",
    block=TAMING.block,
    attention=TAMING.attention,
)
"""Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py."""

DIFFUSERS = Naming(
    encoder_block="encoder.down_blocks.{level}.resnets.{index}",
    encoder_attention="encoder.down_blocks.{level}.attentions.{index}",
    downsample="encoder.down_blocks.{level}.downsamplers.0.conv",
    decoder_block="decoder.up_blocks.{depth}.resnets.{index}",
    decoder_attention="decoder.up_blocks.{depth}.attentions.{index}",
    upsample="decoder.up_blocks.{depth}.upsamplers.0.conv",
    middle_first="{side}.mid_block.resnets.0",
    middle_attention="{side}.mid_block.attentions.0",
    middle_second="{side}.mid_block.resnets.1",
    head_norm="conv_norm_out",
    block={**TAMING.block, "shortcut": "conv_shortcut"},
    attention={
        "norm": "group_norm",
        "query": "to_q",
        "key": "to_k",
        "value": "to_v",
        "output": "to_out.0",
    },
)
"""Source: huggingface/diffusers, models/autoencoders/vae.py and models/unets/unet_2d_blocks.py."""


def fields_from_shapes(naming: Naming, shapes: Shapes) -> dict[str, Any]:
    """Reads off its tensors what a `VqganConfig` says of a network's size.

    Raises:
        CheckpointMismatch: a tensor is missing that the size is read off.
    """

    def size(name: str, axis: int = 0) -> int:
        shape = shapes.get(name, ())
        if len(shape) <= axis:
            raise CheckpointMismatch(
                f"expected a VQGAN's tensor {name}, whose shape says how large the network is, got "
                f"{f'one of the shape {shape}' if name in shapes else 'none'}; give the --layout "
                "that the file was written in"
            )
        return shape[axis]

    def counted(template: str, part: str, **where: int) -> int:
        name = f"{template}.{part}.weight"
        (key,) = {"level", "index"} - where.keys()
        return next(n for n in count() if name.format(**where, **{key: n}) not in shapes)

    first = naming.block["first"]
    levels = counted(naming.encoder_block, first, index=0)
    widths = (
        size(f"{naming.encoder_block.format(level=level, index=0)}.{first}.weight")
        for level in range(levels)
    )
    return {
        "stem_channels": size("encoder.conv_in.weight"),
        "channels": tuple(widths),
        "residual_blocks": counted(naming.encoder_block, first, level=0),
        "decoder_residual_blocks": counted(naming.decoder_block, first, level=0, depth=levels - 1),
        "attention_levels": tuple(_attention_levels(naming, shapes, levels)),
        "middle_attention": _attention(naming, naming.middle_attention.format(side="encoder"))
        in shapes,
        "latent_channels": size("encoder.conv_out.weight"),
        "codebook_size": size(CODEBOOK),
        "code_dim": size(CODEBOOK, 1),
    }


def _attention(naming: Naming, template: str) -> str:
    return f"{template}.{naming.attention['query']}.weight"


def _attention_levels(naming: Naming, shapes: Shapes, levels: int) -> Iterator[int]:
    for level in range(levels):
        if _attention(naming, naming.encoder_attention.format(level=level, index=0)) in shapes:
            yield level
