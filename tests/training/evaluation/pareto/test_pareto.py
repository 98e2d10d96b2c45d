"""Sweeps: combinations, requests, the front, and its files."""

import asyncio
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from muse_client import GenerateOptions, MuseClient
from PIL import Image

from tests import small_stages
from tests.small_stages import HIGH, HIGH_GRID, House
from training.evaluation.pareto import pareto_command
from training.evaluation.pareto.front import Parameters, Point, combinations, pareto_front
from training.evaluation.pareto.pareto_command import folder_name, options_of, pareto
from training.evaluation.pareto.rendering import write_points
from training.evaluation.pictures.manifest import read_manifest


def point(distance: float, text_score: float, guidance: float = 1.0) -> Point:
    """Returns a point of a sweep of guidance."""
    parameters = {"guidance_scale": guidance}
    return Point(parameters=parameters, distance=distance, text_score=text_score, pictures=4)


def test_every_combination_is_tried_once() -> None:
    tried = list(combinations({"guidance_scale": [1.0, 4.0], "steps": [12, 24]}))
    assert [tuple(each.values()) for each in tried] == [(1, 12), (1, 24), (4, 12), (4, 24)]
    assert folder_name(tried[1]) == "guidance_scale=1,steps=24"


def test_the_front_has_the_points_that_no_other_beats() -> None:
    best_distance, middle, best_score = point(5, 0.2), point(7, 0.25), point(9, 0.3)
    beaten, tied = point(8, 0.24), point(7, 0.22)
    points = [beaten, best_score, tied, middle, best_distance]
    assert pareto_front(points) == [best_distance, middle, best_score]
    assert pareto_front([middle, middle]) == [middle, middle]


async def test_parameters_go_to_both_transformers_and_steps_to_their_own(house: House) -> None:
    def options(parameters: Parameters) -> GenerateOptions:
        with MuseClient(house.address) as client:
            return options_of(parameters, client)

    several = {"guidance_scale": 4.0, "steps": 24, "superres_steps": 8}
    made = await asyncio.to_thread(options, several)
    base, superres = made["base"], made["superres"]
    assert (base.guidance_scale, base.steps) == (4, 24)
    assert (superres.guidance_scale, superres.steps) == (4, 8)
    made = await asyncio.to_thread(options, {"temperature": 0.5})
    assert not made["base"].HasField("steps")


def test_points_are_written_as_a_table_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [point(5, 0.2, 1), point(8, 0.1, 2), point(9, 0.3, 4)]
    write_points(points, tmp_path, distance="FID", score="CLIP score")
    rows = list(csv.DictReader((tmp_path / "pareto.csv").open(newline="")))
    assert [row["guidance_scale"] for row in rows] == ["1", "2", "4"]
    assert [row["on_front"] for row in rows] == ["True", "False", "True"]
    assert (rows[1]["FID"], rows[1]["CLIP score"], rows[1]["pictures"]) == ("8", "0.1", "4")
    with Image.open(tmp_path / "pareto.png") as plot:
        assert plot.width > 400


class Means:
    """Describes a picture by its mean colours, and scores it by how dark it is."""

    name = "means"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2))

    def scores(self, prompt: str, pictures: Sequence[np.ndarray]) -> list[float]:
        return [-float(picture.mean()) for picture in pictures]


async def test_a_sweep_through_servers_ends_in_its_files(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    # The smallest side that is read.
    monkeypatch.setitem(small_stages.RESOLUTIONS, HIGH, (16, HIGH_GRID))
    monkeypatch.setattr(pareto_command, "open_clip", lambda model: Means())
    monkeypatch.setattr(pareto_command, "load_efficientnet", lambda network: Means())
    (tmp_path / "prompts.txt").write_text("a ball\ntwo cups\na key\n")
    reference = tmp_path / "reference"
    reference.mkdir()
    for shade in (0, 60):
        Image.new("RGB", (16, 16), (shade,) * 3).save(reference / f"{shade}.png")

    def sweep() -> None:
        pareto(
            prompts=tmp_path / "prompts.txt",
            reference=reference,
            model=tmp_path,
            out=tmp_path / "out",
            server=house.address,
            guidance_scale=[1.0, 4.0],
            steps=[2],
            limit=2,
            side_px=16,
        )

    await asyncio.to_thread(sweep)
    calls = house.calls()
    await asyncio.to_thread(sweep)

    assert house.calls() == calls  # everything was there
    rows = list(csv.DictReader((tmp_path / "out" / "pareto.csv").open(newline="")))
    assert [(row["guidance_scale"], row["steps"]) for row in rows] == [("1.0", "2"), ("4.0", "2")]
    assert all(row["pictures"] == "2" and float(row["CLIP score"]) <= 0 for row in rows)
    assert len(read_manifest(tmp_path / "out" / "guidance_scale=4,steps=2")) == 2
    sampled = [request.sampling.guidance_scale for request in house.stages["base"].asked]
    assert sampled == [1, 1, 4, 4]


def test_a_sweep_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="values of at least one of guidance_scale, temperature"):
        pareto(prompts=tmp_path, reference=tmp_path, model=tmp_path, out=tmp_path)
