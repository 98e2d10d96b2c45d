"""Import of a published VQGAN as a checkpoint of the tokenizer stage."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8

from services.runtime.checkpoints.golden import Golden, write_golden
from services.runtime.checkpoints.integrity import file_digest
from services.runtime.checkpoints.serialization import codebook_fingerprint, save_checkpoint
from services.tokenizer.engine import TokenizerEngine
from services.tokenizer.families import STAGE, VQGAN_FAMILY, load_tokenizer
from services.tokenizer.model import CODEBOOK
from services.tokenizer.vqgan_config import VqganConfig
from training.public_weights.layouts import LayoutName, Pixels, read_vqgan
from training.whole_files import whole_folder


def import_vqgan(
    source: Path,
    layout: LayoutName,
    out: Path,
    *,
    image_size: int,
    pixels: Pixels | None = None,
    record: Mapping[str, str] = MappingProxyType({}),
) -> VqganConfig:
    """Writes a checkpoint of a published VQGAN, with a golden example.

    Weights stay float32: rounding would change tokens.

    Args:
        source: File of the weights, or the folder that it lies in.
        layout: Whose layout it is.
        out: Folder of the new checkpoint; written whole or not at all.
        image_size: Side in pixels that is to be served.
        pixels: Range of the network's pixels; None for that of the layout.
        record: What training.json says besides layout, file and digest, such as a licence.

    Returns:
        Its configuration.

    Raises:
        CheckpointError: the source is missing or damaged, or holds another network than the layout
            says.
        ValueError: `out` is there, or the layout leaves the range of pixels open.
    """
    with whole_folder(out) as folder:
        read = read_vqgan(source, layout, image_size=image_size, pixels=pixels)
        save_checkpoint(
            folder,
            stage=STAGE,
            family=VQGAN_FAMILY,
            config=read.config,
            parameters=read.parameters,
            fingerprint={"codebook": codebook_fingerprint(read.parameters[CODEBOOK])},
            record={
                "imported": {
                    **record,
                    "layout": layout,
                    "file": read.file.name,
                    "digest": file_digest(read.file),
                }
            },
        )
        engine = TokenizerEngine(load_tokenizer(folder))
        inputs = {"tokens": np.asarray(engine.start_encode(_gradients(image_size)))}
        write_golden(folder, Golden(inputs=inputs, outputs=engine.answer_golden(inputs)))
    return read.config


def _gradients(side: int) -> UInt8[np.ndarray, "S S 3"]:
    """Returns a picture with many colours: red grows to the right, green down, blue up."""
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return np.stack([red, green, 255 - green], axis=-1)
