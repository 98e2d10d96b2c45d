"""The search of sampling parameters: one after the other, on the same prompts, the best is kept."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from training.data.scenes import render
from training.evaluation.sampling_search import search
from training.evaluation.scenes import PromptCase, draw_prompt_cases
from training.evaluation.testbed import Testbed

CANDIDATES = {"guidance_scale": (1.0, 2.0, 4.0), "temperature": (0.5, 1.0)}
START = {"guidance_scale": 1.0, "temperature": 1.0}


def test_the_search_finds_the_best_parameters_and_tries_none_twice(testbed: Testbed) -> None:
    prompts = draw_prompt_cases(testbed.vocabulary, testbed.board, 6, seed=1, groups=("single",))

    def generate(
        parameters: Mapping[str, float], cases: Sequence[PromptCase]
    ) -> Iterator[np.ndarray]:
        # So many of the six pictures come out: 2 and 0.5 are best, and 2 is found first.
        right = {1.0: 1, 2.0: 4, 4.0: 2}[parameters["guidance_scale"]]
        right += parameters["temperature"] == 0.5
        for at, case in enumerate(cases):
            blank = np.full((128, 128, 3), 255, np.uint8)
            yield render(case.scene, testbed.sprites, 128) if at < right else blank

    trials = list(search(START, prompts, generate, testbed.detector, CANDIDATES))

    tried = [tuple(trial.parameters.values()) for trial in trials]
    assert tried == [(1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (2.0, 0.5)]
    best = max(trials, key=lambda trial: trial.merit)
    assert best.parameters == {"guidance_scale": 2.0, "temperature": 0.5}
    assert best.all_right == best.objects
    assert best.all_right.value == pytest.approx(5 / 6)


def test_a_search_without_prompts_or_without_a_start_is_refused(testbed: Testbed) -> None:
    prompts = draw_prompt_cases(testbed.vocabulary, testbed.board, 1, seed=1, groups=("single",))

    def generate(
        parameters: Mapping[str, float], cases: Sequence[PromptCase]
    ) -> Iterator[np.ndarray]:
        raise AssertionError("nothing is to be generated")

    with pytest.raises(ValueError, match="got none"):
        next(search(START, [], generate, testbed.detector, CANDIDATES))
    with pytest.raises(ValueError, match="got none for temperature"):
        next(search({"guidance_scale": 1.0}, prompts, generate, testbed.detector, CANDIDATES))
