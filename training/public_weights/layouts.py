"""The layouts that VQGANs are published in: how each is read, and what it says of its network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from services.runtime.checkpoints.documents import config_of, read_object, read_tensors
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.hub import fetch_folder, is_hub_id
from services.tokenizer.vqgan_config import VqganConfig
from training.public_weights.conversion import Tensors, converted
from training.public_weights.described import described_by_diffusers, described_by_open_muse
from training.public_weights.maskgit import as_vqgan, read_maskgit
from training.public_weights.naming import (
    DIFFUSERS,
    LLAMAGEN,
    TAMING,
    Naming,
    fields_from_shapes,
)
from training.public_weights.torch_weights import read_torch, tensors_in

LayoutName = Literal["diffusers", "taming", "ldm", "openmuse", "llamagen", "maskgit"]
Pixels = Literal["signed", "unsigned"]
"""Range of a network's pixels: [-1, 1] or [0, 1]."""

# Tensors beside the network's own: losses with their networks, averages, counters.
OF_TRAINING = ("loss.", "model_ema.", "quantize.codebook_used")
# Names that attention had in diffusers before version 0.18.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class Contents(NamedTuple):
    """What is read of a published VQGAN.

    Attributes:
        tensors: By the names of the layout.
        file: That they were in.
        described: What config.json says of the network's size, as fields of `VqganConfig`; None
            where there is no such file.
    """

    tensors: Tensors
    file: Path
    described: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout that VQGANs are published in.

    Attributes:
        files: Names that the file of the weights has in a folder, the best first.
        read: Reads that file.
        naming: Names of its tensors.
        pixels: Range of the network's pixels; None if checkpoints of the layout differ in it.
        l2_normalised_codes: Whether codes have length 1.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Contents]
    naming: Naming
    pixels: Pixels | None
    l2_normalised_codes: bool = False


@dataclass(frozen=True, kw_only=True)
class PublishedVqgan:
    """A VQGAN as it was read.

    Attributes:
        config: Its configuration.
        parameters: Of a `Vqgan`, by dotted path.
        file: That the weights were in.
    """

    config: VqganConfig
    parameters: Mapping[str, np.ndarray]
    file: Path


def read_vqgan(
    source: Path, layout_name: LayoutName, *, image_size: int, pixels: Pixels | None = None
) -> PublishedVqgan:
    """Reads a published VQGAN.

    Args:
        source: File of the weights, or the folder that it lies in.
        layout_name: Whose layout it is.
        image_size: Side in pixels that is to be served.
        pixels: Range of the network's pixels; None for that of the layout.

    Raises:
        CheckpointError: it is missing or damaged, or holds another network than the layout says.
        ValueError: the layout leaves the range of pixels open.
    """
    layout = LAYOUTS[layout_name]
    pixels = pixels or layout.pixels
    if pixels is None:
        raise ValueError(
            f"the layout {layout_name} does not say whether pixels are in [0, 1] or in [-1, 1]: "
            "expected --pixels unsigned, as for aMUSEd and Meissonic, or --pixels signed, as for "
            "latent diffusion"
        )
    contents = layout.read(file_in(source, layout.files))
    return vqgan_of(contents, layout, image_size=image_size, pixels=pixels)


def vqgan_of(
    contents: Contents, layout: Layout, *, image_size: int, pixels: Pixels
) -> PublishedVqgan:
    """Converts what was read of a published VQGAN; arguments as of `read_vqgan`.

    Raises:
        CheckpointError: it is damaged, or another network than the layout says.
    """
    tensors = {
        name: tensor
        for name, tensor in contents.tensors.items()
        if not name.startswith(OF_TRAINING)
    }
    described = contents.described
    if described is None:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        described = fields_from_shapes(layout.naming, shapes)
    fields = {
        **described,
        "image_size": image_size,
        "l2_normalised_codes": layout.l2_normalised_codes,
        "signed_pixels": pixels == "signed",
    }
    config = config_of(VqganConfig, fields, contents.file)
    parameters = converted(tensors, config, layout.naming, contents.file)
    return PublishedVqgan(config=config, parameters=parameters, file=contents.file)


def located(source: str, layout_name: LayoutName) -> Path:
    """Returns a path on this machine: the source, or what the hub gives if it is an id.

    Raises:
        CheckpointNotFound: it is an id, and the hub does not give it.
    """
    if Path(source).exists() or not is_hub_id(source):
        return Path(source)
    return fetch_folder(source, ("config.json", *LAYOUTS[layout_name].files))


def file_in(source: Path, names: tuple[str, ...]) -> Path:
    """Returns a file, or the first of some names in a folder.

    Raises:
        CheckpointNotFound: there is none.
    """
    files = [source / name for name in names] if source.is_dir() else [source]
    for file in files:
        if file.is_file():
            return file
    raise CheckpointNotFound(
        f"no weights at {source}: expected a file, or a folder with {' or '.join(names)} in it"
    )


def _described(
    describe: Callable[[Mapping[str, Any], Path], Mapping[str, Any]], file: Path
) -> Mapping[str, Any]:
    try:
        return describe(read_object(file), file)
    except TypeError as error:  # of arithmetic with something that is no number
        raise CheckpointMismatch(f"{file} does not describe a VQGAN: {error}") from error


def read_weights(file: Path, places: tuple[str, ...] = ()) -> Tensors:
    """Returns the tensors of a file of safetensors or PyTorch.

    Args:
        file: The file.
        places: As of `tensors_in`.

    Raises:
        CheckpointError: it is damaged, or asks for something besides tensors.
    """
    if file.suffix == ".safetensors":
        return read_tensors(file)
    return tensors_in(read_torch(file), places)


def _read_diffusers(file: Path) -> Contents:
    """Source: huggingface/diffusers, models/autoencoders/vq_model.py."""
    described = _described(described_by_diffusers, file.with_name("config.json"))
    tensors = {
        ".".join(OLD_ATTENTION.get(part, part) for part in name.split(".")): tensor
        for name, tensor in read_weights(file).items()
    }
    return Contents(tensors, file, described)


def _read_open_muse(file: Path) -> Contents:
    """Source: huggingface/open-muse, muse/modeling_utils.py, and its two VQGANs beside it."""
    config = file.with_name("config.json")
    if read_object(config).get("_class_name") == "MaskGitVQGAN":
        return Contents(as_vqgan(read_weights(file), file), file)
    described = _described(described_by_open_muse, config)
    return Contents(read_weights(file), file, described)


def _read_taming(file: Path) -> Contents:
    """Source: CompVis/taming-transformers, taming/models/vqgan.py, `init_from_ckpt`."""
    return Contents(read_weights(file, ("state_dict",)), file)


def _read_llamagen(file: Path) -> Contents:
    """Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_demo.py."""
    return Contents(read_weights(file, ("ema", "model", "state_dict")), file)


def _read_maskgit(file: Path) -> Contents:
    """Source: google-research/maskgit, maskgit/inference.py."""
    return Contents(as_vqgan(read_maskgit(file), file), file)


_TAMING = Layout(
    files=("last.ckpt", "model.ckpt"), read=_read_taming, naming=TAMING, pixels="signed"
)
LAYOUTS: Mapping[LayoutName, Layout] = {
    "diffusers": Layout(
        files=("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        read=_read_diffusers,
        naming=DIFFUSERS,
        pixels=None,
    ),
    "taming": _TAMING,
    "ldm": _TAMING,
    "openmuse": Layout(
        files=("pytorch_model.safetensors", "pytorch_model.bin"),
        read=_read_open_muse,
        naming=TAMING,
        pixels="unsigned",
    ),
    "llamagen": Layout(
        files=("vq_ds16_t2i.pt", "vq_ds16_c2i.pt", "vq_ds8_c2i.pt"),
        read=_read_llamagen,
        naming=LLAMAGEN,
        pixels="signed",
        l2_normalised_codes=True,
    ),
    "maskgit": Layout(
        files=("tokenizer_imagenet256_checkpoint",),
        read=_read_maskgit,
        naming=TAMING,
        pixels="unsigned",
    ),
}
