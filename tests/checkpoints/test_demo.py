"""The checkpoint in the repository is what its record says, and small."""

import json
from pathlib import Path

import numpy as np
import pytest

from services.presets import preset
from services.runtime.checkpoints.serialization import codebook_fingerprint, load_checkpoint
from services.text_encoder.loading import load_text_encoder
from services.tokenizer.config import TokenizerConfig
from training.tasks.frozen import FrozenTextEncoder, FrozenTokenizer

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
SYSTEM = preset("demo")
COLOURS = {"green": (46, 125, 50), "white": (255, 255, 255), "red": (198, 40, 40)}


def test_it_is_small_and_carries_the_notices_of_the_artwork() -> None:
    files = [file for file in DEMO.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40_000_000
    assert "LICENSES/" in (DEMO / "NOTICE.txt").read_text()
    assert {"MIT-Microsoft-fluentui-emoji.txt", "Apache-2.0-noto-emoji.txt"} <= {
        file.name for file in (DEMO / "LICENSES").iterdir()
    }


def test_every_stage_finished_the_recipe_it_records() -> None:
    records = [json.loads(file.read_text()) for file in DEMO.rglob("training.json")]
    assert records
    for record in records:
        assert record["preset"] == "demo"
        assert record["finished"]
        assert record["steps"] == record["recipe"]["steps"]


@pytest.mark.parametrize("resolution", ["low", "high"])
def test_a_tokenizer_is_the_presets_and_named_after_its_codebook(resolution: str) -> None:
    stored = load_checkpoint(
        DEMO / "tokenizer" / resolution, stage="tokenizer", config_type=TokenizerConfig
    )
    low = resolution == "low"
    assert stored.config == (SYSTEM.low_tokenizer if low else SYSTEM.high_tokenizer)
    codebook = stored.parameters["quantizer.codebook"]
    assert stored.fingerprint["codebook"] == codebook_fingerprint(codebook)


@pytest.mark.parametrize("resolution", ["low", "high"])
def test_a_plain_background_is_one_code_and_comes_back_in_its_colour(resolution: str) -> None:
    tokenizer = FrozenTokenizer(DEMO / "tokenizer" / resolution)
    side = tokenizer.config.image_size
    plain = np.stack([np.full((side, side, 3), rgb, np.uint8) for rgb in COLOURS.values()])
    ids = np.asarray(tokenizer.ids(plain))

    assert [len(set(row)) for row in ids] == [1] * len(COLOURS)
    assert len({row[0] for row in ids}) == len(COLOURS)
    off = np.abs(tokenizer.pictures(ids).astype(int) - plain).mean(axis=(1, 2, 3))
    assert (off < 12).all()


def test_the_text_encoder_is_the_presets_and_tells_words_and_their_order_apart() -> None:
    assert load_text_encoder(DEMO / "text_encoder").config == SYSTEM.text_encoder
    encoder = FrozenTextEncoder(DEMO / "text_encoder")
    captions = ("a fox above a key on red", "an owl above a key on red", "a key above a fox on red")
    (fox, words), (owl, other_words), (turned, turned_words) = (
        encoder.words([caption]) for caption in captions
    )
    at = np.flatnonzero(words != other_words)[-1]  # the noun; the article differs before it
    at_turned = np.flatnonzero(turned_words == words[at])[0]

    another_word = np.linalg.norm(fox[at] - owl[at])
    another_place = np.linalg.norm(fox[at] - turned[at_turned])
    assert another_word > another_place > 0.05 * another_word
