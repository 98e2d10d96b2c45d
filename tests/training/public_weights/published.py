"""Published VQGANs with drawn weights, as the goldens describe them, in files of their layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from safetensors.numpy import save_file

from tests.drawn_tensors import drawn_tensors
from training.public_weights.layouts import (
    LAYOUTS,
    Contents,
    LayoutName,
    Pixels,
    PublishedVqgan,
    read_vqgan,
    vqgan_of,
)

GOLDENS = Path(__file__).parents[2] / "goldens" / "vqgan"
LAYOUT_OF: dict[str, LayoutName] = {
    "diffusers": "diffusers",
    "taming": "taming",
    "ldm": "ldm",
    "openmuse": "openmuse",
    "openmuse_maskgit": "openmuse",
    "llamagen": "llamagen",
    "maskgit": "maskgit",
}
OF_PYTORCH = ("taming", "ldm", "llamagen")  # whose files PyTorch alone writes


def golden(name: str) -> dict[str, np.ndarray]:
    """Reads a golden."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return dict(arrays)


def drawn(name: str) -> dict[str, np.ndarray]:
    """Draws the tensors of a golden's network."""
    shapes = json.loads(str(golden(name)["shapes"]))
    return drawn_tensors({each: tuple(shape) for each, shape in shapes.items()})


def described(name: str) -> dict[str, Any]:
    """Returns the config.json of a golden's network."""
    fields: dict[str, Any] = json.loads(str(golden(name)["described"]))
    return fields


def write_published(
    folder: Path,
    name: str,
    tensors: dict[str, np.ndarray] | None = None,
    fields: dict[str, Any] | None = None,
) -> Path:
    """Writes the files of a layout other than PyTorch's own; returns what is to be imported."""
    tensors = drawn(name) if tensors is None else tensors
    folder.mkdir(parents=True, exist_ok=True)
    if name == "maskgit":
        file = folder / "tokenizer_imagenet256_checkpoint"
        file.write_bytes(msgpack_serialize({"params": unflatten_dict(tensors, sep=".")}))
        return file
    stem = "diffusion_pytorch_model" if name == "diffusers" else "pytorch_model"
    save_file(tensors, folder / f"{stem}.safetensors")
    (folder / "config.json").write_text(json.dumps(described(name) if fields is None else fields))
    return folder


def read_published(name: str, folder: Path, image_size: int = 8) -> PublishedVqgan:
    """Reads a golden's network from the files of its layout; of PyTorch's own, from tensors."""
    layout = LAYOUT_OF[name]
    if name in OF_PYTORCH:
        contents = Contents(drawn(name), folder / "weights")
        return vqgan_of(contents, LAYOUTS[layout], image_size=image_size, pixels="signed")
    source = write_published(folder, name)
    pixels: Pixels | None = "unsigned" if name == "diffusers" else None
    return read_vqgan(source, layout, image_size=image_size, pixels=pixels)
