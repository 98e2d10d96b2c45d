"""Where a text encoder's files are: a folder, or a snapshot that the Hugging Face hub gives."""

from pathlib import Path

from services.runtime.checkpoints.documents import read_object
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.hub import fetch_folder

FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "spiece.model",
    "tokenizer.json",
)
KINDS = ("t5", "umt5")  # model_type of config.json


def find_folder(source: str | Path) -> Path:
    """Returns the folder of a text encoder, fetched from the hub if it is an id.

    Args:
        source: A folder, or an id such as "google/flan-t5-xxl", "google/flan-t5-xxl@main" or, in
            diffusers' layout, "owner/name/text_encoder_2". Of a folder in diffusers' layout it is
            the one text encoder that is a T5.

    Raises:
        CheckpointNotFound: it is neither, or the hub does not give it.
        CheckpointMismatch: of several text encoders none or more than one is a T5.
    """
    folder = Path(source)
    if folder.is_dir():
        return _t5_in(folder)
    return _t5_in(fetch_folder(str(source), FILES, beside=tokenizer_folder))


def tokenizer_folder(text_encoder: str) -> str:
    """Returns the name that the folder of a tokenizer has beside a text encoder's, in diffusers."""
    return text_encoder.replace("text_encoder", "tokenizer")


def file_beside(folder: Path, name: str) -> Path | None:
    """Returns a tokenizer's file in the folder of its text encoder, or where diffusers has it."""
    for place in (folder, folder.with_name(tokenizer_folder(folder.name))):
        if (place / name).is_file():
            return place / name
    return None


def _t5_in(folder: Path) -> Path:
    if (folder / "config.json").is_file() or not (folder / "model_index.json").is_file():
        return folder
    encoders = sorted(folder.glob("text_encoder*/config.json"))
    found = [file.parent for file in encoders if read_object(file).get("model_type") in KINDS]
    if len(found) != 1:
        raise CheckpointMismatch(
            f"{folder} is a pipeline of diffusers with the text encoders "
            f"{', '.join(file.parent.name for file in encoders) or 'none'}: expected one that is a "
            f"T5, got {len(found)}; name its folder"
        )
    return found[0]
