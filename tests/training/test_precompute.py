"""What is precomputed in shards is what training would have computed at each step."""

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from services.presets import preset
from services.runtime.checkpoints.serialization import load_checkpoint, save_checkpoint
from services.text_encoder.vocabulary import FILE_NAME, train_vocabulary
from services.tokenizer.config import TokenizerConfig
from training import runs
from training.loop import Task
from training.precompute.__main__ import CONFIGURATION, DATA, main
from training.precompute.examples import PrecomputedSource
from training.precompute.shards import Shard, ShardError, find_shards
from training.recipe_changes import RecipeChanges
from training.tasks.frozen import FrozenTextEncoder

TINY = preset("tiny")
EXAMPLES, SHARDS = 11, 3
BROKEN, LATIN_1 = 4, 7  # odd examples: a picture cut short, a caption that is no UTF-8
TWO_STEPS = RecipeChanges(steps=2)
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven captioned pictures in two tars, two of them odd."""
    folder, random = tmp_path_factory.mktemp("tars"), np.random.default_rng(0)
    for name, rows in (("a", range(5)), ("b", range(5, EXAMPLES))):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for row in rows:
                picture = io.BytesIO()
                side = TINY.high_tokenizer.image_size
                pixels = random.integers(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(pixels).save(picture, "PNG")
                caption = " ".join(["a ball"] * (row + 1)).encode()
                if row == LATIN_1:
                    caption = "Füchse".encode("latin-1")
                file = picture.getvalue()[: 100 if row == BROKEN else None]
                for suffix, content in (("png", file), ("txt", caption)):
                    member = tarfile.TarInfo(f"{row:03}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def _params(task: Task) -> dict[str, np.ndarray]:
    params = task.params(task.initial_state(task.given))
    return {name: np.asarray(value) for name, value in params.items()}


@pytest.fixture(scope="module")
def checkpoints(artwork: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the text encoder and both tokenizers, untrained."""
    root, out = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("runs")
    (out / "text").mkdir()
    texts = ["a ball and a box on navy", "two eggs on white"] * 10
    vocabulary = train_vocabulary(texts, TINY.text_encoder.vocabulary_size)
    (out / "text" / FILE_NAME).write_bytes(vocabulary.model)
    text = runs.text_encoder_task(TINY, artwork, out / "text", seed=0, changes=TWO_STEPS)
    text.export(_params(text), root / "text_encoder", {})
    for resolution in ("low", "high"):
        task = runs.tokenizer_task(
            TINY, artwork, out, resolution=resolution, seed=0, changes=TWO_STEPS
        )
        task.export(_params(task), root / "tokenizer" / resolution, {})
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns its exit status and what it said."""

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["precompute", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


def flags(tars: Path, checkpoints: Path, out: Path, index: int, count: int = SHARDS) -> list[str]:
    return [
        f"--data={tars}",
        f"--checkpoints={checkpoints}",
        f"--out={out}",
        f"--shard={index}",
        f"--shards={count}",
        "--preset=tiny",
        "--batch-size=2",
    ]


@pytest.fixture(scope="module")
def made(tars: Path, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All shards, of which tests take copies."""
    folder = tmp_path_factory.mktemp("made")
    for index in range(SHARDS):
        for what in ("tokens", "embeddings"):
            words = flags(tars, checkpoints, folder, index)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["precompute", what, *words])
                with pytest.raises(SystemExit) as ended:
                    main()
            assert not ended.value.code
    return folder


def test_captions_that_are_too_long_are_cut_and_counted(
    checkpoints: Path,
) -> None:
    encoder = FrozenTextEncoder(checkpoints / "text_encoder")
    longest = encoder.maximum_length
    text, mask = encoder.embeddings(["a fox", "a fox " * longest])

    assert (encoder.captions_read, encoder.captions_cut) == (2, 1)
    assert text.shape[1] == longest
    assert int(mask[1].sum()) == longest


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> Path:
    """All shards, to be changed at will."""
    return shutil.copytree(made, tmp_path / "shards")


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_training_sees_the_same_examples(
    stage: Literal["base", "superres"],
    tars: Path,
    checkpoints: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "MEASURED_CAPTIONS", 8)
    computed, precomputed = (
        runs.transformer_task(TINY, stage, tars, checkpoints, tmp_path, seed=3, precomputed=folder)
        for folder in (None, whole)
    )

    for step in range(5):  # more than an epoch
        wanted, got = computed.batch(step), precomputed.batch(step)
        np.testing.assert_array_equal(got.low, wanted.low)
        np.testing.assert_array_equal(got.text_mask, wanted.text_mask)
        real = np.asarray(wanted.text_mask)
        np.testing.assert_allclose(
            np.asarray(got.text)[real], np.asarray(wanted.text)[real], rtol=2**-7, atol=1e-4
        )
        assert (got.high is None) == (wanted.high is None) == (stage == "base")
        if wanted.high is not None:
            np.testing.assert_array_equal(got.high, wanted.high)


def test_shards_have_every_example_once_and_differ_by_at_most_one() -> None:
    for examples, count in ((11, 3), (64, 64), (1000, 7)):
        shards = [
            Shard(kind="tokens", index=index, count=count, examples=examples, made_by={})
            for index in range(count)
        ]
        assert [row for shard in shards for row in shard.rows] == list(range(examples))
        sizes = {len(shard.rows) for shard in shards}
        assert max(sizes) - min(sizes) <= 1


def test_a_shard_that_is_there_is_not_made_again(
    tars: Path, checkpoints: Path, whole: Path, run: Run
) -> None:
    file = find_shards(whole, "tokens")[0][0]
    before = file.stat().st_mtime_ns

    status, said = run("tokens", *flags(tars, checkpoints, whole, 0))

    assert (status, "is there already" in said) == (0, True)
    assert file.stat().st_mtime_ns == before


def test_a_shard_that_is_missing_is_named(whole: Path) -> None:
    find_shards(whole, "embeddings")[1][0].unlink()

    with pytest.raises(ShardError, match=r"of 3 shards of embeddings, \[1\] are missing"):
        find_shards(whole, "embeddings")


def test_shards_of_other_stages_are_refused(
    tars: Path,
    checkpoints: Path,
    whole: Path,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoints, other)
    found = load_checkpoint(
        other / "tokenizer" / "low", stage="tokenizer", config_type=TokenizerConfig
    )
    save_checkpoint(
        other / "tokenizer" / "low",
        stage="tokenizer",
        config=found.config,
        parameters=found.parameters,
        fingerprint={**found.fingerprint, "codebook": "codebook:another"},
        record={},
    )
    monkeypatch.setattr(runs, "MEASURED_CAPTIONS", 8)

    with pytest.raises(ShardError, match="expected what codebook:another makes, got what"):
        runs.transformer_task(TINY, "base", tars, other, tmp_path, seed=0, precomputed=whole)
    status, said = run("tokens", *flags(tars, other, whole, 0))
    assert status == CONFIGURATION
    assert "is of something else" in said


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [
        (3, 3, "expected a shard of 0 to 2 of at least 1, got shard 3 of 3"),
        (-1, 3, "got shard -1 of 3"),
        (0, 0, "got shard 0 of 0"),
        (0, 12, "expected at most as many shards as examples, 11, got 12"),
    ],
)
def test_a_mistake_that_every_shard_would_meet_ends_with_78(
    index: int, count: int, message: str, tars: Path, checkpoints: Path, tmp_path: Path, run: Run
) -> None:
    status, said = run("tokens", *flags(tars, checkpoints, tmp_path / "out", index, count))

    assert status == CONFIGURATION
    assert message in said
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_other_mistakes_that_every_shard_would_meet_end_with_78_too(
    artwork: Path, tars: Path, checkpoints: Path, tmp_path: Path, run: Run
) -> None:
    for data, root, message in (
        (artwork, checkpoints, "got sprites: scenes are drawn anew"),
        (tmp_path, checkpoints, "found none"),
        (tars, tmp_path, "text_encoder"),
    ):
        status, said = run("embeddings", *flags(data, root, tmp_path / "out", 0))
        assert status == CONFIGURATION
        assert message in said
    status, said = run("tokens", *flags(tars, checkpoints, tmp_path, 0)[:-1], "--batch-size=0")
    assert (status, "batch_size: expected 1 or more, got 0" in said) == (CONFIGURATION, True)


def test_an_odd_example_ends_no_shard_and_is_named_beside_it(
    tars: Path, checkpoints: Path, made: Path, tmp_path: Path, run: Run
) -> None:
    named = {}
    for file in made.glob("*.skipped.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            named[file.name] = (row["file"], row["key"])
    assert named == {
        "tokens-00001-of-00003.skipped.jsonl": ("a.tar", f"{BROKEN:03}"),
        "embeddings-00002-of-00003.skipped.jsonl": ("b.tar", f"{LATIN_1:03}"),
    }
    status, said = run("tokens", *flags(tars, checkpoints, tmp_path / "out", 1))
    assert status == 0
    assert "4 of 11 examples, 1 of them unusable, 0 left out by filters" in said


def test_a_shard_of_too_many_odd_examples_ends_with_65(
    tars: Path, checkpoints: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.captioned.log.JUDGED_FROM", 2)
    words = flags(tars, checkpoints, tmp_path / "out", 1)

    status, said = run("tokens", *words, "--max-skipped-share=0.1")

    assert status == DATA
    assert "more than --max-skipped-share 0.1, the last one 004 of a.tar" in said
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_filters_of_training_are_those_of_its_shards(
    tars: Path,
    checkpoints: Path,
    made: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    for what in ("tokens", "embeddings"):
        words = flags(tars, checkpoints, out, 0, count=1)
        assert run(what, *words, "--max-caption-chars=40")[0] == 0
    source = PrecomputedSource(out)
    # "a ball" five times over is 34 characters, six times 41.
    usable = [row for row in range(EXAMPLES) if source.row(row) is not None]
    assert usable == [row for row in range(5) if row != BROKEN]

    monkeypatch.setattr(runs, "MEASURED_CAPTIONS", 8)
    with pytest.raises(ShardError, match=r"the filters of the shards, \{'max_caption_chars': 40"):
        runs.transformer_task(TINY, "base", tars, checkpoints, out, seed=0, precomputed=out)

    for file in made.glob("embeddings-*"):
        shutil.copy(file, out)
    (out / "embeddings-00000-of-00001.safetensors").unlink()
    with pytest.raises(ShardError, match="tokens were made with the filters"):
        PrecomputedSource(out)


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens-00000-of-00001.safetensors").write_bytes(b"nothing")

    with pytest.raises(ShardError, match=r"is no shard of `python -m training\.precompute`"):
        find_shards(tmp_path, "tokens")
    with pytest.raises(ShardError, match="expected embeddings"):
        find_shards(tmp_path, "embeddings")
