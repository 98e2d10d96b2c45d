"""Import of aMUSEd as the checkpoints of a whole system: text encoder, base and tokenizer.

Source: Patil et al. 2024, "aMUSEd: An Open MUSE Reproduction"; huggingface/diffusers,
pipelines/amused/pipeline_amused.py and schedulers/scheduling_amused.py.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from services.base.families import UVIT_FAMILY
from services.base.spec import BASE
from services.base.uvit_config import UVitConfig
from services.masked.defaults import FILE_NAME as SAMPLING_FILE
from services.runtime.checkpoints.documents import read_object
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.hub import fetch_folder, is_hub_id
from services.runtime.checkpoints.integrity import file_digest
from services.runtime.checkpoints.serialization import save_checkpoint
from services.text_encoder.clip_vocabulary import FILE_NAME as VOCABULARY_FILE
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.families import CLIP_FAMILY, encoder_fingerprint
from services.text_encoder.loading import load_text_encoder
from services.tokenizer.families import load_tokenizer
from training.golden import golden_tokens, keep_golden
from training.public_weights.clip import WEIGHTS as CLIP_WEIGHTS
from training.public_weights.clip import PublishedClip, read_clip
from training.public_weights.described import check_fields
from training.public_weights.layouts import LAYOUTS, file_in, read_weights
from training.public_weights.uvit import uvit_config, uvit_parameters
from training.public_weights.vqgan import import_vqgan
from training.whole_files import whole_folder

WEIGHTS = LAYOUTS["diffusers"].files
# What is fetched of a hub's repository: no pickles, no half precision.
FILES = (
    "README.md",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    f"text_encoder/{CLIP_WEIGHTS[0]}",
    "tokenizer/*.json",
    "tokenizer/merges.txt",
    "transformer/config.json",
    f"transformer/{WEIGHTS[0]}",
    "vqvae/config.json",
    f"vqvae/{WEIGHTS[0]}",
)
LICENCE = "openrail++"  # under which aMUSEd's authors publish their weights
STEPS, GUIDANCE, CHOICE_TEMPERATURE = 12, 10.0, 2.0  # the pipeline's defaults
# Our guidance adds t times the difference to the conditional logits, theirs s - 1 times. The noise
# on confidences of step k of n, k from 0, is 2 (n - 1 - k) / (n - 1) there, and tau (n - 1 - k) / n
# here.
SAMPLING = {
    "steps": STEPS,
    "guidance_scale": GUIDANCE - 1,
    "guidance_scale_start": GUIDANCE - 1,
    "temperature": 1.0,
    "choice_temperature": CHOICE_TEMPERATURE * STEPS / (STEPS - 1),
}
PROMPT = "a photo of a fox"  # of the golden examples


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A system that was imported.

    Attributes:
        config: Of its base.
        licence: Of the weights, as the model card names it; `LICENCE` where there is none.
    """

    config: UVitConfig
    licence: str


class _PublishedBase(NamedTuple):
    config: UVitConfig
    parameters: Mapping[str, np.ndarray]  # but for `no_text`
    file: Path


def import_amused(source: str, out: Path) -> Imported:
    """Writes the checkpoints of text encoder, base and tokenizer, each with a golden example.

    Weights are float32.

    Args:
        source: Folder of a pipeline that diffusers wrote, or a hub id such as "amused/amused-512",
            also as ID@REVISION.
        out: Folder of the checkpoints; written whole or not at all.

    Raises:
        CheckpointError: the source is missing or damaged, or no aMUSEd.
        ValueError: `out` is there.
    """
    with whole_folder(out) as folder:
        place = _located(source)
        licence = licence_of(place)
        record = {"source": source, "licence": licence}
        clip = read_clip(place / "text_encoder", place / "tokenizer")
        base = _read_base(place, clip)
        config = base.config
        low = folder / "tokenizer" / "low"
        vqgan = import_vqgan(
            place / "vqvae",
            "diffusers",
            low,
            image_size=config.image_size,
            pixels="unsigned",
            record=record,
        )
        if vqgan.codebook_size != config.vocabulary:
            raise CheckpointMismatch(
                f"{place}: expected a VQGAN of {config.vocabulary} codes, as codebook_size of the "
                f"transformer says, got one of {vqgan.codebook_size}: the folders are of two "
                "pipelines"
            )
        encoder = _write_text_encoder(folder / "text_encoder", clip, record)
        codebook = load_tokenizer(low).fingerprint["codebook"]
        _write_base(folder / "base", base, encoder, codebook, record)
    return Imported(config=config, licence=licence)


def _located(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if is_hub_id(source):
        return fetch_folder(source, FILES)
    raise CheckpointNotFound(
        f"expected a folder of aMUSEd or a hub id such as amused/amused-512, got {source}"
    )


def licence_of(place: Path) -> str:
    """Returns the licence that the front matter of a model card names, or `LICENCE`."""
    card = place / "README.md"
    front = card.read_text("utf-8", errors="replace").split("---")[1:2] if card.is_file() else []
    named = re.search(r"^license:\s*(\S+)", "".join(front), re.MULTILINE)
    return named[1] if named else LICENCE


def _base_config(place: Path, clip: PublishedClip) -> UVitConfig:
    file = place / "transformer" / "config.json"
    fields, tokenizer = read_object(file), read_object(place / "vqvae" / "config.json")
    try:
        factor = 2 ** (len(tokenizer["block_out_channels"]) - 1)
        image_size = factor * int(fields["sample_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(
            f"{place} is no aMUSEd: expected sample_size in transformer/config.json and "
            f"block_out_channels in vqvae/config.json, got {error!r}"
        ) from error
    positions = clip.config.maximum_length
    config = uvit_config(fields, file, image_size=image_size, positions=positions)
    if clip.config.hidden != config.text_hidden:
        raise CheckpointMismatch(
            f"{file}: expected encoder_hidden_size {clip.config.hidden}, the width of the text "
            f"encoder, got {config.text_hidden}: the folders are of two pipelines"
        )
    return config


def _mask_id(place: Path, config: UVitConfig, rows: int) -> int:
    """Returns the row of [MASK] in the transformer's embedding of tokens."""
    file = place / "scheduler" / "scheduler_config.json"
    fields = read_object(file)
    check_fields(fields, {"_class_name": "AmusedScheduler", "masking_schedule": "cosine"}, file)
    mask_id = fields.get("mask_token_id")
    if not isinstance(mask_id, int) or not config.vocabulary <= mask_id < rows:
        raise CheckpointMismatch(
            f"{file}: expected mask_token_id {config.vocabulary} to {rows - 1}, after the codes, "
            f"got {mask_id!r}"
        )
    return mask_id


def _read_base(place: Path, clip: PublishedClip) -> _PublishedBase:
    config = _base_config(place, clip)
    file, described = file_in(place / "transformer", WEIGHTS), place / "transformer" / "config.json"
    rows = read_object(described).get("vocab_size", 8256)
    if not isinstance(rows, int):
        raise CheckpointMismatch(f"{described}: expected a number as vocab_size, got {rows!r}")
    mask_id = _mask_id(place, config, rows)
    tensors = read_weights(file)
    parameters = uvit_parameters(tensors, config, rows=rows, mask_id=mask_id, source=file)
    return _PublishedBase(config, parameters, file)


def _write_text_encoder(
    folder: Path, clip: PublishedClip, record: Mapping[str, Any]
) -> TextEncoderEngine:
    save_checkpoint(
        folder,
        stage="text_encoder",
        family=CLIP_FAMILY,
        config=clip.config,
        parameters=clip.parameters,
        fingerprint={"encoder": encoder_fingerprint(clip.config, clip.parameters, clip.vocabulary)},
        record=_with_file(record, clip.file),
    )
    (folder / VOCABULARY_FILE).write_bytes(clip.vocabulary)
    engine = TextEncoderEngine(load_text_encoder(folder), max_batch_size=1)
    tokens = np.array(engine.tokenize(PROMPT), np.int32)
    keep_golden(folder, {"tokens": tokens}, engine.answer_golden)
    return engine


def _write_base(
    folder: Path,
    base: _PublishedBase,
    encoder: TextEncoderEngine,
    codebook: str,
    record: Mapping[str, Any],
) -> None:
    text, no_text = encoder.embed([encoder.tokenize(each) for each in (PROMPT, "")])
    save_checkpoint(
        folder,
        stage="base",
        family=UVIT_FAMILY,
        config=base.config,
        parameters={**base.parameters, "no_text": no_text.astype(np.float32)},
        fingerprint={"encoder": encoder.loaded.fingerprint, "codebook": codebook},
        record=_with_file(record, base.file),
    )
    (folder / SAMPLING_FILE).write_text(json.dumps(SAMPLING, indent=2) + "\n")
    golden_tokens(BASE, folder, {"text": text.astype(np.float32)})


def _with_file(record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Returns the record of an import with the file of the weights and its digest."""
    return {"imported": {**record, "file": file.name, "digest": file_digest(file)}}
