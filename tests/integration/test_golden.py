"""Golden examples of a whole system: written by training, answered by servers before they serve."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.base import __main__ as base
from services.base.config import BaseConfig
from services.runtime.checkpoints.errors import CheckpointNotFound, GoldenMismatch
from services.runtime.checkpoints.golden import GOLDEN_FILE, read_golden, write_golden
from services.runtime.checkpoints.serialization import load_checkpoint, save_checkpoint
from services.runtime.server.process import running_server
from services.superres import __main__ as superres
from services.text_encoder import __main__ as text_encoder
from services.tokenizer import __main__ as tokenizer
from training.golden import write_goldens

SERVERS: dict[str, Any] = {
    "text_encoder": text_encoder,
    "base": base,
    "superres": superres,
    "tokenizer/low": tokenizer,
    "tokenizer/high": tokenizer,
}


@pytest.fixture(scope="module")
def golden(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of all stages with their golden examples."""
    root = tmp_path_factory.mktemp("golden") / "checkpoints"
    shutil.copytree(checkpoints, root)
    files = write_goldens(root, "a fox")
    assert [file.parent for file in files] == [root / place for place in SERVERS]
    return root


async def start(place: str, root: Path) -> None:
    server = SERVERS[place]
    settings = server.Settings(checkpoints=root, port=0)
    async with running_server(await server.build(settings), settings):
        pass


@pytest.mark.parametrize("place", SERVERS)
async def test_a_server_serves_only_what_answers_its_golden_example(
    place: str, golden: Path, tmp_path: Path
) -> None:
    await start(place, golden)
    root = tmp_path / "checkpoints"
    shutil.copytree(golden, root)
    example = read_golden(root / place)
    assert example is not None
    other = {name: value[::-1].copy() for name, value in example.outputs.items()}
    write_golden(root / place, replace(example, outputs=other))
    with pytest.raises(GoldenMismatch, match=f"{place}: the golden example's .* differ by"):
        await start(place, root)


def test_new_weights_leave_no_example_of_the_old_ones(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden / "base", tmp_path / "base")
    old = load_checkpoint(tmp_path / "base", stage="base", config_type=BaseConfig)
    save_checkpoint(
        tmp_path / "base",
        stage="base",
        config=old.config,
        parameters={name: np.zeros_like(value) for name, value in old.parameters.items()},
        fingerprint=old.fingerprint,
        record=old.record,
    )
    assert not (tmp_path / "base" / GOLDEN_FILE).exists()


def test_a_superres_without_the_tokenizer_of_its_tokens_is_refused_and_nothing_is_removed(
    golden: Path, tmp_path: Path
) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(golden, root)
    shutil.rmtree(root / "tokenizer/high")
    with pytest.raises(CheckpointNotFound, match="a superres and no tokenizer/high"):
        write_goldens(root, "a fox")
    assert read_golden(root / "base") is not None
