"""Scenes asked for and read back: what is drawn is right, and what is wrong is called wrong."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from muse_client import MuseClient
from PIL import Image

from training.data.scenes import render, scene_is_held_out
from training.evaluation.reliability import measure_detector
from training.evaluation.reports import write_report
from training.evaluation.scenes import (
    GROUPS,
    PromptCase,
    ScoredImage,
    draw_prompt_cases,
    score,
    score_all,
    shares_by_group,
)
from training.evaluation.scenes_command import scenes
from training.evaluation.server import generate_all
from training.evaluation.shares import Share, share_of
from training.evaluation.testbed import Testbed

LIMITED = ("scenes-0.json", "scenes-1.json")
TRAINING_LIKE = tuple(name for name, group in GROUPS.items() if not group.held_out)


def _cases(testbed: Testbed, count: int, *, seed: int, groups: tuple[str, ...]) -> list[PromptCase]:
    return draw_prompt_cases(testbed.vocabulary, testbed.board, count, seed=seed, groups=groups)


def _scored(testbed: Testbed, cases: list[PromptCase]) -> list[ScoredImage]:
    pictures = (render(case.scene, testbed.sprites, 128) for case in cases)
    return list(score_all(cases, pictures, testbed.detector))


def test_composed_scenes_are_all_right_in_every_group(testbed: Testbed) -> None:
    shares = shares_by_group(_scored(testbed, _cases(testbed, 4, seed=1, groups=TRAINING_LIKE)))
    assert list(shares) == [*TRAINING_LIKE, "all training-like"]
    whole = shares["all training-like"]
    assert whole["all"] == Share(right=20, total=20)
    assert whole["relation"] == Share(right=8, total=8)
    assert shares["single"]["relation"] is None


def test_no_object_is_recognised_past_the_worst_distance_that_is_given(testbed: Testbed) -> None:
    cases = _cases(testbed, 1, seed=2, groups=("single",))
    pictures = [render(cases[0].scene, testbed.sprites, 128)]
    (recognised,) = score_all(cases, pictures, testbed.detector)
    (missed,) = score_all(cases, pictures, testbed.detector, worst_distance=0.0)
    assert (recognised.score.objects, missed.score.objects) == (True, False)
    assert missed.reading.unrecognised >= 1


def test_another_background_and_a_turned_relation_are_wrong(testbed: Testbed) -> None:
    (case,) = _cases(testbed, 1, seed=2, groups=("pair by relation",))
    (drawn,) = _scored(testbed, [case])
    other = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    turned = replace(case.scene, relation=other[str(case.scene.relation)], background="other")
    result = score(turned, drawn.reading)
    assert result.objects
    assert result.counts
    assert not result.relation
    assert not result.background
    assert not result.all


def test_an_unrecognised_thing_beside_the_objects_is_wrong(testbed: Testbed) -> None:
    (case,) = _cases(testbed, 1, seed=2, groups=("single",))
    (drawn,) = _scored(testbed, [case])
    result = score(case.scene, replace(drawn.reading, unrecognised=1))
    assert result.objects
    assert not result.counts
    assert not result.all


def test_prompts_are_repeatable_and_held_out_only_where_they_say(testbed: Testbed) -> None:
    groups = (*TRAINING_LIKE, "held-out several")
    cases = _cases(testbed, 5, seed=3, groups=groups)
    assert cases == _cases(testbed, 5, seed=3, groups=groups)
    for case in cases:
        held_out = scene_is_held_out(case.scene, testbed.vocabulary)
        assert held_out == (case.group == "held-out several")
    sides = ("on the left", "on the right", "at the top", "at the bottom")
    for case in cases:
        said = any(side in case.prompt for side in sides)
        assert said == (case.group == "pair by place") or "on the" in case.prompt


def test_groups_that_are_unknown_or_empty_are_refused(testbed: Testbed) -> None:
    with pytest.raises(ValueError, match="unknown group 'heap': expected one of single"):
        _cases(testbed, 1, seed=0, groups=("heap",))
    with pytest.raises(ValueError, match="at least 1 prompt"):
        _cases(testbed, 0, seed=0, groups=("single",))


def test_a_share_has_a_standard_error() -> None:
    share = share_of([True] * 90 + [False] * 10)
    assert share.value == 0.9
    assert share.standard_error == pytest.approx(0.03)
    assert str(share) == "90.0 ± 3.0%"
    with pytest.raises(ValueError, match="got none"):
        share_of([])


def test_a_report_holds_the_detector_the_shares_and_every_picture(
    testbed: Testbed, tmp_path: Path
) -> None:
    scored = _scored(testbed, _cases(testbed, 2, seed=5, groups=("single", "count")))
    reliability = measure_detector(testbed, 1, seed=0)
    write_report("scenes", scored, reliability, tmp_path / "new" / "scenes.json")
    report = json.loads((tmp_path / "new" / "scenes.json").read_text())
    assert report["shares"]["count"]["all"] == {"share": 1.0, "standard_error": 0.0, "total": 2}
    assert report["shares"]["count"]["relation"] is None
    assert [one["prompt"] for one in report["pictures"]] == [one.case.prompt for one in scored]
    assert report["detector"]["all_right"]["composed"]["total"] == 1
    assert Image.open(tmp_path / "new" / "scenes.png").width == 4 * 132 + 4


@contextmanager
def composer(testbed: Testbed, cases: list[PromptCase]) -> Iterator[str]:
    """Yields the address of an orchestrator that paints the cases in order, all of them right."""
    asked = iter(cases)

    class Composer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
        def Generate(
            self, request: orchestrator_pb2.GenerateRequest, context: grpc.ServicerContext
        ) -> Iterator[orchestrator_pb2.GenerateResponse]:
            case = next(asked)
            assert (request.prompt, request.seed) == (case.prompt, case.seed)
            buffer = io.BytesIO()
            Image.fromarray(render(case.scene, testbed.sprites, 128)).save(buffer, "PNG")
            image = orchestrator_pb2.GeneratedImage(png=buffer.getvalue())
            yield orchestrator_pb2.GenerateResponse(image=image)

    server = grpc.server(ThreadPoolExecutor(1))
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Composer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


def test_pictures_come_from_a_server(testbed: Testbed) -> None:
    cases = _cases(testbed, 2, seed=4, groups=("single",))
    with composer(testbed, cases) as address, MuseClient(address) as client:
        scored = list(score_all(cases, generate_all(client, cases), testbed.detector))
    assert [one.score.all for one in scored] == [True, True]
    assert all(np.array_equal(a.picture.shape, (128, 128, 3)) for a in scored)


def test_the_command_reads_the_same_pictures_with_several_limits(
    testbed: Testbed, artwork: Path, tmp_path: Path
) -> None:
    cases = _cases(testbed, 1, seed=0, groups=("single",))
    with composer(testbed, cases) as address:
        scenes(
            data=artwork,
            server=address,
            prompts_per_group=1,
            group=["single"],
            worst_distance=[0.0, 1.0],
            out=tmp_path,
        )
    reports = {name: json.loads((tmp_path / name).read_text()) for name in LIMITED}
    assert [each["detector"]["worst_distance"] for each in reports.values()] == [0.0, 1.0]
    assert [each["shares"]["single"]["all"]["share"] for each in reports.values()] == [0.0, 1.0]
