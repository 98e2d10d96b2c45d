"""A folder for the hub: the checkpoints as they are, and a card that the hub's client reads."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from services.runtime.checkpoints.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    CheckpointNotFound,
)
from training.hub_folder import write_hub_folder

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A copy of the demo's stages of a few MB."""
    root = tmp_path / "checkpoints"
    for place in ("text_encoder", "tokenizer/low"):
        shutil.copytree(DEMO / place, root / place)
    shutil.copytree(DEMO / "LICENSES", root / "LICENSES")
    return root


def written(checkpoints: Path) -> Path:
    out = checkpoints.with_name("hub")
    assert write_hub_folder(checkpoints, out, licence="openrail++", name="A demo") == [
        "text_encoder",
        "tokenizer/low",
    ]
    return out


def test_the_folder_has_every_file_as_it_was(checkpoints: Path) -> None:
    out = written(checkpoints)
    names = {str(each.relative_to(checkpoints)) for each in checkpoints.rglob("*")}
    assert {str(each.relative_to(out)) for each in out.rglob("*")} == names | {"README.md"}
    for each in checkpoints.rglob("*.*"):
        if each.is_file():
            assert (out / each.relative_to(checkpoints)).read_bytes() == each.read_bytes()


def test_the_hubs_client_reads_the_card(checkpoints: Path) -> None:
    card = ModelCard.load(written(checkpoints) / "README.md")
    assert card.data.license == "openrail++"
    assert card.data.pipeline_tag == "text-to-image"
    assert card.text.strip().startswith("# A demo")
    assert "| `text_encoder` | muse | 1,304,064 | 2.6 MB | 1,200 steps, preset demo" in card.text
    header = json.loads((checkpoints / "tokenizer/low/config.json").read_text())
    assert header["fingerprint"]["codebook"] in card.text


def test_a_readme_is_the_text_of_the_card(checkpoints: Path) -> None:
    (checkpoints / "README.md").write_text("# Ours\n\nPaints foxes.\n")
    card = ModelCard.load(written(checkpoints) / "README.md")
    assert card.text.strip().startswith("# Ours\n\nPaints foxes.\n\n## Stages")
    assert (checkpoints / "README.md").read_text() == "# Ours\n\nPaints foxes.\n"


def test_what_cannot_be_served_is_not_written(checkpoints: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], message: str, root: Path = checkpoints) -> None:
        with pytest.raises(error, match=message):
            write_hub_folder(root, tmp_path / "hub", licence="mit", name="x")
        assert not list(tmp_path.glob("hub*"))

    refused(CheckpointNotFound, "has no checkpoint", tmp_path)
    weights = checkpoints / "tokenizer/low/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(CheckpointDamaged, "is not what was written")
    weights.unlink()
    refused(CheckpointNotFound, "no tokenizer checkpoint")
    shutil.rmtree(checkpoints / "tokenizer/low")
    shutil.copytree(checkpoints / "text_encoder", checkpoints / "base")
    refused(CheckpointMismatch, "holds stage 'text_encoder': expected 'base'")


def test_a_folder_that_has_a_card_of_the_hub_is_refused(checkpoints: Path) -> None:
    out = written(checkpoints)
    with pytest.raises(ValueError, match=r"README\.md is a card of the hub already: upload"):
        write_hub_folder(out, out.with_name("again"), licence="mit", name="x")


def test_a_folder_that_is_there_is_kept(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with pytest.raises(FileExistsError, match="name a new folder"):
        write_hub_folder(checkpoints, tmp_path / "hub", licence="mit", name="x")
