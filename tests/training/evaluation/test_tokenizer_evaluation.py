"""Tokenizers measured: a perfect one and a coarse one, and how many patterns an object has."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.training.evaluation.remembering_tokenizer import RememberingTokenizer
from training.data.scenes import draw_scene
from training.evaluation.fidelity import psnr_db
from training.evaluation.testbed import Testbed
from training.evaluation.token_entropy import measure_entropy
from training.evaluation.tokenizers import measure_tokenizer, view_of

SIDE_PX = 128


class Patches:
    """Names every patch of a picture after its colours."""

    def __init__(self, grid: int) -> None:
        self.config = SimpleNamespace(image_size=SIDE_PX, codebook_size=2**31, grid=grid)
        self.names: dict[bytes, int] = {}

    def ids(self, images: np.ndarray) -> np.ndarray:
        grid = self.config.grid
        side = SIDE_PX // grid
        patches = images.reshape(-1, grid, side, grid, side, 3).swapaxes(2, 3)
        flat = patches.reshape(len(images), grid * grid, -1)
        return np.array(
            [[self.names.setdefault(row.tobytes(), len(self.names)) for row in one] for one in flat]
        )


def test_a_perfect_tokenizer_and_a_coarse_one(testbed: Testbed) -> None:
    random = np.random.default_rng(0)
    scenes = [draw_scene(testbed.vocabulary, testbed.board, random) for _ in range(10)]
    perfect, coarse = (
        measure_tokenizer(RememberingTokenizer(SIDE_PX, exact=exact), scenes, testbed)  # type: ignore[arg-type]
        for exact in (True, False)
    )
    assert (perfect.psnr_db, perfect.all_right.value) == (100.0, 1.0)
    assert (perfect.codes, perfect.codes_used) == (64, 10)
    assert perfect.perplexity == pytest.approx(10)
    assert coarse.psnr_db < 30
    assert coarse.all_right.value == 0
    assert perfect.as_json()["all_right"] == {"share": 1.0, "standard_error": 0.0, "total": 10}


def test_a_tokenizer_of_another_size_is_refused(testbed: Testbed) -> None:
    tokenizer = RememberingTokenizer(SIDE_PX, exact=True)
    tokenizer.config.image_size = 96
    with pytest.raises(ValueError, match="for 128 px or 64 px, got one for 96 px"):
        measure_tokenizer(tokenizer, [], testbed)  # type: ignore[arg-type]


def test_tokens_inside_an_object_have_one_pattern_and_those_at_its_rim_one_a_background(
    testbed: Testbed,
) -> None:
    entropy = measure_entropy(
        Patches(testbed.board.cells),  # type: ignore[arg-type]
        testbed,
        objects=6,
        samples=48,
        seed=0,
    )
    assert entropy.interior_bits == 0  # whatever the background: they show the object alone
    assert 0.5 < entropy.object_bits < np.log2(len(testbed.vocabulary.backgrounds))


def test_finer_tokens_mix_with_the_background_less(testbed: Testbed) -> None:
    coarse, fine = (
        measure_entropy(
            Patches(grid),  # type: ignore[arg-type]
            testbed,
            objects=6,
            samples=48,
            seed=0,
        )
        for grid in (8, 16)
    )
    assert fine.object_bits < coarse.object_bits


def test_grids_and_samples_that_measure_nothing_are_refused(testbed: Testbed) -> None:
    with pytest.raises(ValueError, match=r"multiple of 8 tokens.*got 4"):
        measure_entropy(Patches(4), testbed, objects=1, samples=2, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 object and 2 samples"):
        measure_entropy(Patches(8), testbed, objects=1, samples=1, seed=0)  # type: ignore[arg-type]


def test_the_low_view_is_a_reduced_picture(testbed: Testbed) -> None:
    scene = draw_scene(testbed.vocabulary, testbed.board, np.random.default_rng(1))
    whole, half = (view_of(scene, testbed, side).astype(float) for side in (128, 64))
    means = whole.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - half).max() <= 1
    assert psnr_db(whole.astype(np.uint8), whole.astype(np.uint8)) == 100
