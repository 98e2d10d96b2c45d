"""The commands that measure distances: what their flags become, and what they write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.evaluation.__main__ import app
from training.evaluation.distances import distance_commands


class Colours:
    """Describes a picture by its mean colour."""

    name = "colours"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2))


def test_two_sets_are_read_as_the_flags_say_and_their_distance_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distance_commands, "load_efficientnet", lambda _: Colours())
    random = np.random.default_rng(0)
    for name, count in (("real", 9), ("generated", 6)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = random.integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    folders = [str(tmp_path / name) for name in ("real", "generated")]
    flags = ["--side-px", "16", "--limit", "8", "--out", str(tmp_path / "out")]

    app(["frechet", *folders, *flags], result_action="return_value")

    report = json.loads((tmp_path / "out" / "frechet.json").read_text())
    assert report["pictures"] == dict(zip(folders, (8, 6), strict=True))
    assert (report["network"], report["side_px"]) == ("colours", 16)
    assert report["distance"] > 0
    assert "Fréchet distance of 8 and 6 pictures at 16 px" in capsys.readouterr().out
