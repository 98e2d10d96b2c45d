"""EfficientNet-Lite0 with random weights, and the old PyTorch file it comes in."""

import struct
from collections.abc import Mapping

import numpy as np
import pytest

# Kernel, channels and expansion of each block.
BLOCKS = (
    (3, 32, 16, 1),
    *((3, inputs, 24, 6) for inputs in (16, 24)),
    *((5, inputs, 40, 6) for inputs in (24, 40)),
    *((3, inputs, 80, 6) for inputs in (40, 80, 80)),
    *((5, inputs, 112, 6) for inputs in (80, 112, 112)),
    *((5, inputs, 192, 6) for inputs in (112, 192, 192, 192)),
    (3, 192, 320, 6),
)
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def random_weights() -> dict[str, np.ndarray]:
    """Draws the weights of the whole network, by the names of its PyTorch file."""
    random, weights = np.random.default_rng(0), dict[str, np.ndarray]()

    def convolution(name: str, *shape: int) -> None:
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = random.normal(size=shape, scale=deviation).astype(np.float32)

    def normalisation(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            low = 0.5 if part in ("weight", "running_var") else -0.2
            weights[f"{name}.{part}"] = random.uniform(low, low + 0.9, width).astype(np.float32)

    convolution("_conv_stem", 32, 3, 3, 3)
    normalisation("_bn0", 32)
    for index, (kernel, inputs, outputs, expansion) in enumerate(BLOCKS):
        name, wide = f"_blocks.{index}", inputs * expansion
        if expansion > 1:
            convolution(f"{name}._expand_conv", wide, inputs, 1, 1)
            normalisation(f"{name}._bn0", wide)
        convolution(f"{name}._depthwise_conv", wide, 1, kernel, kernel)
        normalisation(f"{name}._bn1", wide)
        convolution(f"{name}._project_conv", outputs, wide, 1, 1)
        normalisation(f"{name}._bn2", outputs)
    convolution("_conv_head", 1280, 320, 1, 1)
    normalisation("_bn1", 1280)
    return weights


@pytest.fixture(scope="session")
def weights() -> dict[str, np.ndarray]:
    """Random weights of EfficientNet-Lite0."""
    return random_weights()


def text(words: str) -> bytes:
    """Pickles a text."""
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def integers(*values: int) -> bytes:
    """Pickles a tuple of integers."""
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def torch_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns float32 arrays as `torch.save` wrote a state before version 1.6.

    The pickles are put together by hand: pickling the names of PyTorch's functions needs PyTorch.
    """
    ordered = b"ccollections\nOrderedDict\n)R"
    tensors, keys, contents = b"", b"", b""
    for index, (name, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(index))
        storage += text("cpu") + b"J" + struct.pack("<i", array.size) + b"NtQ"
        tensors += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
        tensors += (
            b"K\x00" + integers(*array.shape) + integers(*strides) + b"\x89" + ordered + b"tR"
        )
        keys += text(str(index))
        contents += struct.pack("<q", array.size) + array.tobytes(order="A")
    magic = MAGIC.to_bytes(10, "little")
    pickles = (
        b"\x8a" + bytes([len(magic)]) + magic,
        b"M" + struct.pack("<H", PROTOCOL),
        b"}" + text("little_endian") + b"\x88s",
        ordered + b"(" + tensors + b"u",
        b"(" + keys + b"l",
    )
    return b"".join(b"\x80\x02" + each + b"." for each in pickles) + contents
