"""aMUSEd's networks with drawn weights, as diffusers and transformers write and answer them."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from services.base.families import build_base
from services.base.uvit import UVit
from services.base.uvit_config import UVitConfig
from services.nn.parameters import with_parameters
from tests.drawn_tensors import drawn_tensors
from tests.training.public_weights.published import write_published
from training.public_weights.amused import import_amused
from training.public_weights.uvit import uvit_config, uvit_parameters

GOLDENS = Path(__file__).parents[2] / "goldens" / "amused"
VOCABULARY = GOLDENS / "vocabulary"
PIXELS = 16  # of a token along one side


def golden(name: str) -> dict[str, Any]:
    """Returns the arrays of a golden, and "fields" and "shapes" read from JSON."""
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as arrays:
        return {
            part: json.loads(str(arrays[part])) if part in ("fields", "shapes") else arrays[part]
            for part in arrays.files
        }


def drawn(name: str) -> dict[str, np.ndarray]:
    """Draws the tensors of a golden's network."""
    return drawn_tensors({each: tuple(shape) for each, shape in golden(name)["shapes"].items()})


def write_text_encoder(folder: Path, name: str = "clip", **changes: Any) -> Path:
    """Writes a text encoder as transformers does, with changes in its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**golden(name)["fields"], **changes}
    (folder / "config.json").write_text(json.dumps(fields))
    buffer = {"text_model.embeddings.position_ids": np.arange(77)[None]}  # as old files have
    save_file({**drawn(name), **buffer}, folder / "model.safetensors")
    return folder


def write_pipeline(folder: Path, name: str = "uvit_256") -> Path:
    """Writes a whole pipeline as diffusers does: its grid has the shape of a golden's."""
    write_text_encoder(folder / "text_encoder")
    shutil.copytree(VOCABULARY, folder / "tokenizer")
    write_published(folder / "vqvae", "diffusers")
    fields = golden(name)["fields"]
    scheduler = {"_class_name": "AmusedScheduler", "mask_token_id": fields["vocab_size"] - 1}
    for part, content in (("transformer", fields), ("scheduler", scheduler)):
        (folder / part).mkdir()
        stem = "scheduler_config" if part == "scheduler" else "config"
        (folder / part / f"{stem}.json").write_text(json.dumps(content))
    save_file(drawn(name), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    (folder / "README.md").write_text("---\nlibrary_name: x\nlicense: mit\n---\nlicense: other\n")
    return folder


def imported(folder: Path) -> Path:
    """Imports such a pipeline, written into a folder; returns its checkpoints."""
    import_amused(str(write_pipeline(folder / "source")), folder / "checkpoints")
    return folder / "checkpoints"


def drawn_texts(config: UVitConfig) -> np.ndarray:
    """Draws the text and the empty text of the goldens."""
    shape = (2, config.text_length, config.text_hidden)
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def drawn_uvit(name: str) -> UVit:
    """Returns our network with the weights that diffusers' has."""
    fields, file = golden(name)["fields"], Path("transformer")
    side = fields["sample_size"] * PIXELS
    config = uvit_config(fields, file, image_size=side, positions=5)
    rows = fields["vocab_size"]
    parameters = uvit_parameters(drawn(name), config, rows=rows, mask_id=rows - 1, source=file)
    parameters["no_text"] = drawn_texts(config)[1]
    model = with_parameters(lambda: build_base(config, jnp.float32), parameters)
    assert isinstance(model, UVit)
    return model
