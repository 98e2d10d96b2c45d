"""A folder for the Hugging Face hub: the checkpoints of a system, with a model card.

The folder is one that servers read as it is. The hub's own client uploads it, and brings it back.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from services.runtime.checkpoints.documents import read_record
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.integrity import check_digest, file_digest
from services.runtime.checkpoints.serialization import OWN_FAMILY, WEIGHTS_FILE, read_header
from services.runtime.version import package_version
from services.stages import STAGES

PLACES = tuple(place for stage in STAGES.values() for place in stage.checkpoints)
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A checkpoint of a stage, as the card describes it."""

    place: str
    family: str
    fingerprint: dict[str, str]
    record: dict[str, Any]
    parameters: int
    size_bytes: int


def write_hub_folder(checkpoints: Path, out: Path, *, licence: str, name: str) -> list[str]:
    """Writes the checkpoints of a system and their model card into a new folder.

    Args:
        checkpoints: Folder with the checkpoint of one stage at least; notices, licences and
            whatever else lies in it go along, a README.md as the text of the card.
        out: The new folder.
        licence: Identifier of the weights' licence that the hub knows, such as "apache-2.0".
        name: Title of the card.

    Returns:
        The stages that are in it, as their places in the folder.

    Raises:
        CheckpointError: no stage is there, or the weights of one are not those that were written.
        FileExistsError: `out` is there.
        ValueError: the folder has a card already, or the hub's client is not installed.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: name a new folder")
    stages = [_stage(checkpoints, place) for place in PLACES if (checkpoints / place).is_dir()]
    if not stages:
        raise CheckpointNotFound(
            f"{checkpoints} has no checkpoint: expected one of {', '.join(PLACES)} there"
        )
    file = checkpoints / CARD
    text = file.read_text("utf-8") if file.is_file() else ""
    if text.startswith("---"):
        raise ValueError(f"{file} is a card of the hub already: upload {checkpoints} as it is")
    card = _card(stages, licence, name, text)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(checkpoints, part)
        (part / CARD).write_text(card, "utf-8")
        part.rename(out)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return [stage.place for stage in stages]


def _stage(checkpoints: Path, place: str) -> _Stage:
    folder, stage = checkpoints / place, place.partition("/")[0]
    header, weights = read_header(folder, stage), folder / WEIGHTS_FILE
    if header.get("stage") != stage:
        raise CheckpointMismatch(
            f"{folder} holds stage {header.get('stage')!r}: expected {stage!r}"
        )
    if "digest" in header:
        check_digest(weights, expected=header["digest"], got=file_digest(weights))
    try:
        with safe_open(weights, framework="numpy") as tensors:
            shapes = [tensors.get_slice(each).get_shape() for each in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointMismatch(f"{weights} cannot be read: {error}") from error
    return _Stage(
        place=place,
        family=header.get("family", OWN_FAMILY),
        fingerprint=header["fingerprint"],
        record=read_record(folder),
        parameters=sum(map(prod, shapes)),
        size_bytes=weights.stat().st_size,
    )


def _card(stages: Sequence[_Stage], licence: str, name: str, text: str) -> str:
    """Returns the card: what the hub reads, the text, the stages, how to serve them."""
    try:
        from huggingface_hub import ModelCardData
    except ImportError as error:
        raise ValueError(
            "a model card needs the package huggingface-hub: install the extra muse[hub]"
        ) from error
    data = ModelCardData(
        license=licence,
        library_name="muse",
        pipeline_tag="text-to-image",
        tags=["muse", "arxiv:2301.00704"],
    )
    rows = [
        f"| `{each.place}` | {each.family} | {each.parameters:,} | {each.size_bytes / 1e6:.1f} MB "
        f"| {_trained(each.record)} | {', '.join(each.fingerprint.values())} |"
        for each in stages
    ]
    return "\n".join(
        [
            "---",
            data.to_yaml(),
            "---",
            "",
            text.strip() or f"# {name}",
            "",
            "## Stages",
            "",
            "| stage | family | parameters | weights | trained | fingerprints |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Written by muse {package_version()}. Each `training.json` is the record of a run.",
            "",
            "## Use",
            "",
            "    hf download OWNER/NAME --local-dir FOLDER",
            "    muse up --checkpoints FOLDER",
            "",
        ]
    )


def _trained(record: dict[str, Any]) -> str:
    parts = [f"{record['steps']:,} steps"] if "steps" in record else []
    parts += [f"preset {record['preset']}"] if "preset" in record else []
    parts += [f"data {record['data']}"] if "data" in record else []
    return ", ".join(parts) or "no record"
