"""MaskGIT's VQGAN, as a network of the family `vqgan` that computes the same.

MaskGIT's network differs from VQGAN's in what other weights of VQGAN's express:

- Most convolutions have no bias: theirs is 0. The encoder's last one is 1 x 1: a 3 x 3 kernel with
  zeros around it.
- A size is halved by the mean of 2 x 2 pixels: a convolution of stride 2 with weights of 1/4.
- Where a residual block changes the number of channels, the shortcut takes the block's own output
  h and not its input: h + S h is a convolution whose kernel is multiplied by 1 + S, and the
  shortcut from the input is 0.
- Nothing lies between encoder and codebook, and between codebook and decoder: 1 x 1 convolutions
  with the identity as their kernel.

Source: google-research/maskgit, maskgit/nets/vqgan_tokenizer.py and maskgit/nets/layers.py; names
of the JAX file as huggingface/open-muse, scripts/convert_maskgit_vqgan.py, reads them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from services.runtime.checkpoints.errors import CheckpointMismatch
from training.public_weights.conversion import Tensors, check_names
from training.public_weights.naming import CODEBOOK

MIDDLE_BLOCKS = 2


def read_maskgit(file: Path) -> dict[str, np.ndarray]:
    """Reads MaskGIT's JAX file, Flax's serialization of a dictionary.

    Returns:
        Its tensors by the names, and in the order of axes, of open-muse's PyTorch module
        `MaskGitVQGAN`.

    Raises:
        CheckpointMismatch: the file cannot be read, or holds another network.
    """
    try:
        content: Any = msgpack_restore(file.read_bytes())
    except Exception as error:  # as many kinds as msgpack and its extensions have
        raise CheckpointMismatch(
            f"{file} is no file of Flax's msgpack: {error!r}; it may be truncated, fetch it again"
        ) from error
    tree = content.get("params") if isinstance(content, Mapping) else None
    if not isinstance(tree, Mapping):
        raise CheckpointMismatch(f'{file}: expected a dictionary with the key "params"')
    flat = flatten_dict(tree, sep=".")
    convolutions = sum(name.startswith("decoder.Conv_") for name in flat) // 2
    blocks = len({name.split(".")[1] for name in flat if name.startswith("encoder.ResBlock_")})
    levels = convolutions - 1
    if levels < 1 or (blocks - MIDDLE_BLOCKS) % levels:
        raise CheckpointMismatch(
            f"{file}: expected MaskGIT's tokenizer, whose decoder has a convolution a resolution "
            f"and one more, got {convolutions} convolutions and {blocks} residual blocks"
        )
    names = dict(_jax_names(levels, (blocks - MIDDLE_BLOCKS) // levels))
    renamed: dict[str, np.ndarray] = {}
    for name, value in flat.items():
        module, _, kind = name.rpartition(".")
        if module in names:
            ending = "bias" if kind == "bias" else "weight"
            value = np.asarray(value)
            turned = value.transpose(3, 2, 0, 1) if kind == "kernel" and value.ndim == 4 else value
            renamed[f"{names[module]}.{ending}"] = turned
        else:
            renamed[name] = value
    if "quantizer.codebook" in renamed:
        renamed[CODEBOOK] = np.asarray(renamed.pop("quantizer.codebook"))
    return renamed


def _jax_names(levels: int, blocks: int) -> Iterator[tuple[str, str]]:
    """Yields the modules of the JAX file and what open-muse calls them."""
    parts = {
        "GroupNorm_0": "norm1",
        "Conv_0": "conv1",
        "GroupNorm_1": "norm2",
        "Conv_1": "conv2",
        "Conv_2": "nin_shortcut",
    }
    for side in ("encoder", "decoder"):
        in_levels = [
            f"{'down' if side == 'encoder' else 'up'}.{level}.block.{index}"
            for level in (range(levels) if side == "encoder" else reversed(range(levels)))
            for index in range(blocks)
        ]
        middle = [f"mid.{index}" for index in range(MIDDLE_BLOCKS)]
        order = in_levels + middle if side == "encoder" else middle + in_levels
        for number, block in enumerate(order):
            for theirs, ours in parts.items():
                yield f"{side}.ResBlock_{number}.{theirs}", f"{side}.{block}.{ours}"
        yield f"{side}.Conv_0", f"{side}.conv_in"
        yield f"{side}.GroupNorm_0", f"{side}.norm_out"
    yield "encoder.Conv_1", "encoder.conv_out"
    for number in range(1, levels):
        yield f"decoder.Conv_{number}", f"decoder.up.{levels - number}.upsample_conv"
    yield f"decoder.Conv_{levels}", "decoder.conv_out"


def as_vqgan(tensors: Tensors, source: Path) -> dict[str, np.ndarray]:
    """Returns weights of taming's VQGAN, by its names, that compute what MaskGIT's do.

    Args:
        tensors: By the names and in the order of axes of open-muse's `MaskGitVQGAN`.
        source: Where they were read from, for messages.

    Raises:
        CheckpointMismatch: a tensor is missing, unknown or of another shape.
    """
    return _Rewriting(tensors, source).written()


class _Rewriting:
    """The rewriting of one network: which tensors were taken, and what became of them."""

    def __init__(self, tensors: Tensors, source: Path) -> None:
        self._tensors, self._source = tensors, source
        self._taken: list[str] = []
        self._made: dict[str, np.ndarray] = {}

    def written(self) -> dict[str, np.ndarray]:
        levels = sum(f"encoder.down.{n}.block.0.conv1.weight" in self._tensors for n in range(16))
        blocks = sum(f"encoder.down.0.block.{n}.conv1.weight" in self._tensors for n in range(16))
        for side, resolutions in (("encoder", "down"), ("decoder", "up")):
            for level in range(levels):
                for index in range(blocks):
                    name = f"{side}.{resolutions}.{level}.block.{index}"
                    self._block(name, name)
            for index in range(MIDDLE_BLOCKS):
                self._block(f"{side}.mid.{index}", f"{side}.mid.block_{index + 1}")
            self._copy(f"{side}.norm_out", f"{side}.norm_out")
        self._convolution("encoder.conv_in", self._take("encoder.conv_in.weight"))
        last = self._take("encoder.conv_out.weight")
        around = ((0, 0), (0, 0), (1, 1), (1, 1))
        self._made["encoder.conv_out.weight"] = np.pad(last, around if last.ndim == 4 else 0)
        self._made["encoder.conv_out.bias"] = self._take("encoder.conv_out.bias")
        for level in range(levels - 1):
            width = len(self._made[f"encoder.down.{level}.block.0.conv1.weight"])
            mean = np.zeros((width, width, 3, 3), np.float32)
            mean[:, :, :2, :2] = np.eye(width, dtype=np.float32)[:, :, None, None] / 4
            self._convolution(f"encoder.down.{level}.downsample.conv", mean)
            above = level + 1
            self._copy(f"decoder.up.{above}.upsample_conv", f"decoder.up.{above}.upsample.conv")
        self._copy("decoder.conv_in", "decoder.conv_in")
        self._copy("decoder.conv_out", "decoder.conv_out")
        self._made[CODEBOOK] = self._take(CODEBOOK)
        check_names(self._tensors, self._taken, self._source)
        identity = np.eye(self._made[CODEBOOK].shape[-1], dtype=np.float32)[:, :, None, None]
        self._convolution("quant_conv", identity)
        self._convolution("post_quant_conv", identity)
        return self._made

    def _take(self, name: str) -> np.ndarray:
        """Returns a tensor; of a missing one, which `check_names` reports later, an empty one."""
        self._taken.append(name)
        return self._tensors.get(name, np.zeros((0, 0, 1, 1), np.float32))

    def _copy(self, theirs: str, ours: str) -> None:
        for kind in ("weight", "bias"):
            self._made[f"{ours}.{kind}"] = self._take(f"{theirs}.{kind}")

    def _convolution(self, name: str, weight: np.ndarray) -> None:
        self._made[f"{name}.weight"] = weight
        self._made[f"{name}.bias"] = np.zeros(len(weight), np.float32)

    def _block(self, theirs: str, ours: str) -> None:
        for norm in ("norm1", "norm2"):
            self._copy(f"{theirs}.{norm}", f"{ours}.{norm}")
        first, second = (self._take(f"{theirs}.{each}.weight") for each in ("conv1", "conv2"))
        if f"{theirs}.nin_shortcut.weight" in self._tensors:
            shortcut = self._take(f"{theirs}.nin_shortcut.weight")
            second = self._through_shortcut(theirs, second, shortcut)
            self._convolution(
                f"{ours}.nin_shortcut", np.zeros((*first.shape[:2], 1, 1), np.float32)
            )
        self._convolution(f"{ours}.conv1", first)
        self._convolution(f"{ours}.conv2", second)

    def _through_shortcut(self, block: str, kernel: np.ndarray, shortcut: np.ndarray) -> np.ndarray:
        """Returns the kernel of h + S h, where h is the convolution with a kernel."""
        if shortcut.shape != (len(kernel), len(kernel), 1, 1):
            raise CheckpointMismatch(
                f"{self._source}: {block}.nin_shortcut.weight has the shape {shortcut.shape}, "
                f"expected {(len(kernel), len(kernel), 1, 1)}: the shortcut of MaskGIT's blocks "
                "takes their own output"
            )
        wide = np.eye(len(kernel)) + shortcut[:, :, 0, 0].astype(np.float64)
        return np.einsum("om,mihw->oihw", wide, kernel.astype(np.float64)).astype(np.float32)
