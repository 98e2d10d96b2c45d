"""CLIP scores of sets: means, tags, missing prompts, and the model's own cosine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.orchestrator.test_best_of import save_tiny_clip
from training.evaluation.pictures.reading import PictureSet
from training.evaluation.text_scores.clip_score import (
    mean_score,
    open_clip,
    picture_scores,
    scores_by_tag,
)

PROMPTS = ["a ball", "a ball", "two cups"]
TAGS: tuple[dict[str, Any], ...] = ({"kind": "one"}, {"kind": "one"}, {"kind": 2})


def picture_set(prompts: Sequence[str | None] = PROMPTS) -> PictureSet:
    """Returns noisy pictures with prompts and tags."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (len(prompts), 32, 32, 3)).astype(np.uint8)
    return PictureSet(
        names=tuple(f"{index}.png" for index in range(len(prompts))),
        read=images.__getitem__,
        caption=prompts.__getitem__,
        tags=TAGS[: len(prompts)],
    )


class Lengths:
    """Scores a picture by its first pixel and the length of its prompt."""

    def scores(self, prompt: str, pictures: Sequence[np.ndarray]) -> list[float]:
        return [len(prompt) + float(picture[0, 0, 0]) for picture in pictures]


def test_each_picture_is_scored_with_its_own_prompt() -> None:
    pictures = picture_set()
    expected = [len(PROMPTS[index]) + float(pictures.read(index)[0, 0, 0]) for index in range(3)]
    assert picture_scores(pictures, Lengths()) == expected


def test_the_mean_has_its_standard_error() -> None:
    score = mean_score([0.1, 0.3])
    assert score.mean == pytest.approx(0.2)
    assert score.standard_error == pytest.approx(0.1)
    assert mean_score([0.4]).standard_error == 0
    assert score.as_json()["pictures"] == 2


def test_tags_have_means_of_their_own() -> None:
    means = scores_by_tag(picture_set(), [0.1, 0.3, 0.9], "kind")
    assert {name: each.mean for name, each in means.items()} == {
        "one": pytest.approx(0.2),
        "2": 0.9,
    }
    with pytest.raises(ValueError, match=r"got 'colour'; 0\.png has kind"):
        scores_by_tag(picture_set(), [0.1, 0.3, 0.9], "colour")


def test_a_picture_without_a_prompt_is_named() -> None:
    with pytest.raises(ValueError, match=r"prompt of every picture, got none of 1\.png"):
        picture_scores(picture_set(["a ball", None]), Lengths())


def test_the_score_is_the_cosine_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    save_tiny_clip(transformers, tmp_path)
    pictures = picture_set()
    model = transformers.CLIPModel.from_pretrained(str(tmp_path)).eval()
    processor = transformers.CLIPProcessor.from_pretrained(str(tmp_path))
    images = [pictures.read(index) for index in range(3)]
    inputs = processor(text=PROMPTS, images=images, return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = model(**inputs).logits_per_image / model.logit_scale.exp()

    scores = picture_scores(pictures, open_clip(tmp_path))

    np.testing.assert_allclose(scores, logits.diagonal().numpy(), atol=1e-5)
