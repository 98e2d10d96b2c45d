"""An imported aMUSEd goes on learning: by the training command, and served as before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.base.families import CONFIG_TYPES
from services.base.spec import BASE
from services.base.uvit import NO_TEXT
from services.decoding.serving import default_serving_config
from services.decoding.state import Sampling, fresh_row
from services.masked.defaults import FILE_NAME as SAMPLING_FILE
from services.masked.engine import MaskedEngine
from services.presets import preset
from services.runtime.checkpoints.adapters import load_adapter
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.families import load_family
from services.runtime.checkpoints.golden import read_golden
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import load_text_encoder
from tests.picture_files import file_of, noise
from tests.training.public_weights.amused import imported
from training import runs
from training.__main__ import app
from training.precompute.__main__ import app as precompute
from training.recipe_changes import RecipeChanges
from training.tasks.frozen import FrozenTextEncoder
from training.tasks.masked_tokens import MaskedTokensTask

TINY = preset("tiny")
LONG = "a red fox beside a blue key, " * 30
SIDE_PX = 256


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(tmp_path_factory.mktemp("amused"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four captioned pictures, one caption of which is longer than CLIP's 77 positions."""
    folder = tmp_path_factory.mktemp("pictures")
    for row in range(4):
        picture = np.roll(noise(SIDE_PX, SIDE_PX), row, axis=0)
        (folder / f"{row}.png").write_bytes(file_of(picture))
        (folder / f"{row}.txt").write_text(LONG if row == 3 else f"{row} foxes")
    return folder


def task_of(
    data: Path, root: Path, out: Path, steps: int = 2, precomputed: Path | None = None
) -> MaskedTokensTask:
    task = runs.transformer_task(
        TINY,
        "base",
        data,
        root,
        out,
        seed=0,
        changes=RecipeChanges(steps=steps, batch_size=4, learning_rate=1e-2, warm_up_steps=1),
        initialize_from=root / "base",
        precomputed=precomputed,
    )
    assert isinstance(task, MaskedTokensTask)
    return task


def decoded(engine: MaskedEngine[Any], text: np.ndarray, adapters: dict[str, float]) -> np.ndarray:
    """Returns the tokens of a decode of four steps."""
    if not engine.pool.compiled:
        engine.pool.warm_up()
    row = fresh_row(engine.config.tokens, Sampling(steps=4, seed=3, guidance_scale=3.0))
    engine.pool.admit(0, engine.decode_request(row, text, adapters=adapters))
    return engine.pool.advance(4, [0])[0].tokens


def test_captions_are_embedded_as_when_serving_and_cut_where_serving_refuses(
    checkpoints: Path,
) -> None:
    folder = checkpoints / "text_encoder"
    encoder = FrozenTextEncoder(folder)
    values, mask = encoder.embeddings(["a fox", LONG])
    engine = TextEncoderEngine(load_text_encoder(folder), max_batch_size=1)
    (served,) = engine.embed([engine.tokenize("a fox")])
    np.testing.assert_allclose(values[0], served, rtol=2**-8)  # sent in bfloat16
    assert mask.shape == (2, encoder.maximum_rows)
    assert mask.all()
    assert (encoder.captions_read, encoder.captions_cut) == (2, 1)
    ids, _, _ = engine.loaded.vocabulary.encode_batch([LONG, "a fox"], 77)
    assert ids.shape == (2, 77)
    assert ids[0, -1] == ids[1].max()  # what is cut has an end too


def test_what_was_imported_learns_by_the_command_and_is_served_as_before(
    checkpoints: Path, pictures: Path, tmp_path: Path
) -> None:
    start, root, run = checkpoints / "base", tmp_path / "root", tmp_path / "run"
    root.mkdir()
    for name in ("text_encoder", "tokenizer"):
        (root / name).symlink_to(checkpoints / name)
    command = (
        f"base --preset tiny --data {pictures} --checkpoints {root} --out {run} --from {start}"
    )
    flags = "--steps 40 --batch-size 4 --warm-up-steps 1 --learning-rate 1e-2"
    app([*command.split(), *flags.split()], result_action="return_value")

    before, after = (
        load_family(folder, stage="base", config_types=CONFIG_TYPES)
        for folder in (start, root / "base")
    )
    assert after.config == before.config
    *_, last = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert last["loss"] < 0.8 * np.log(after.config.vocabulary)  # four pictures, learned by heart
    assert after.fingerprint == before.fingerprint
    assert after.parameters.keys() == before.parameters.keys()
    changed = {
        name
        for name, value in before.parameters.items()
        if np.abs(after.parameters[name] - value).max() > 0.01 * np.abs(value).max()
    }
    assert {"tokens", "blocks.attention.project.kernel", "down_blocks.depthwise.kernel"} <= changed
    assert NO_TEXT not in changed
    assert (root / "base" / SAMPLING_FILE).read_bytes() == (start / SAMPLING_FILE).read_bytes()

    engine = MaskedEngine.load(BASE, root / "base", default_serving_config(1, precision="float32"))
    engine.pool.warm_up()
    golden = read_golden(start)
    assert golden is not None
    tokens = engine.answer_golden(golden.inputs)["tokens"]
    assert 0 <= tokens.min() <= tokens.max() < after.config.vocabulary


def test_shards_of_a_system_without_a_superres_are_what_training_reads(
    checkpoints: Path, pictures: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    common = f"--data {pictures} --checkpoints {checkpoints} --out {shards} --preset tiny"
    for kind in ("tokens", "embeddings"):
        words = [kind, *common.split(), "--shard", "0", "--shards", "1"]
        precompute(words, result_action="return_value")
    read, computed = (
        task_of(pictures, checkpoints, tmp_path / "run", precomputed=each).batch(0)
        for each in (shards, None)
    )
    assert read.high is computed.high is None
    np.testing.assert_array_equal(read.low, computed.low)
    np.testing.assert_array_equal(read.text_mask, computed.text_mask)
    np.testing.assert_allclose(read.text, computed.text, rtol=2**-7, atol=1e-6)


def test_an_adapter_learns_by_the_command_and_is_served_beside_the_checkpoint_or_merged(
    checkpoints: Path, pictures: Path, tmp_path: Path
) -> None:
    start, run, merged = checkpoints / "base", tmp_path / "run", tmp_path / "merged"
    command = (
        f"base --preset tiny --data {pictures} --checkpoints {checkpoints} --out {run} "
        f"--from {start} --adapter-rank 8 --steps 40 --batch-size 4 --warm-up-steps 1 "
        f"--learning-rate 3e-2"
    )
    app(command.split(), result_action="return_value")
    *_, last = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    command = f"merge --checkpoint {start} --adapter {run / 'adapter'} --out {merged}"
    app(command.split(), result_action="return_value")

    before, after = (
        load_family(folder, stage="base", config_types=CONFIG_TYPES) for folder in (start, merged)
    )
    assert last["loss"] < 0.9 * np.log(after.config.vocabulary)  # it begins at 1.0 or above
    assert (after.config, after.fingerprint) == (before.config, before.fingerprint)
    changed = {
        name
        for name, value in before.parameters.items()
        if not np.array_equal(after.parameters[name], value)
    }
    assert changed == set(load_adapter(run / "adapter").factors)
    assert {"blocks.attention.project.kernel", "up_blocks.first.key_value.kernel"} <= changed

    assert read_golden(start) is not None
    assert read_golden(merged) is None  # the answer of other weights
    serving = default_serving_config(1, precision="float32")
    fox = {"fox": run / "adapter"}
    beside = MaskedEngine.load(BASE, start, serving, adapters=fox)
    alone = MaskedEngine.load(BASE, merged, serving)
    (text,), _ = FrozenTextEncoder(checkpoints / "text_encoder").embeddings(["2 foxes"])
    adapted, whole, plain = (
        decoded(engine, text, weights)
        for engine, weights in ((beside, {"fox": 1.0}), (alone, {}), (beside, {}))
    )
    assert (adapted == whole).mean() > 0.98  # the sums are rounded in another order
    assert (adapted == plain).mean() < 0.9


def test_a_new_transformer_is_refused(checkpoints: Path, artwork: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="of the family 'clip': expected a T5; on a CLIP"):
        runs.transformer_task(TINY, "base", artwork, checkpoints, tmp_path, seed=0)
