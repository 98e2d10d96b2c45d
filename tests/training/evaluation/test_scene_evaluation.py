"""Tests for reading scenes back: what is drawn is read, and what is wrong is called wrong."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from muse_client import MuseClient
from PIL import Image

from training.data.scenes import render, scene_is_held_out
from training.data.sprites import load_sprites
from training.evaluation.__main__ import server_painter
from training.evaluation.detector import Detector
from training.evaluation.scenes import draw_questions, judge, judge_all, shares

LIKE_TRAINING = ("single", "pair", "pair by place", "count", "several")


def test_scenes_are_read_as_they_were_drawn(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    questions = draw_questions(sprites.vocabulary, 10, seed=1, groups=LIKE_TRAINING)
    judged = list(judge_all(questions, lambda a: render(a.scene, sprites, 128), Detector(sprites)))
    assert shares(judged)["training-like"]["all"] == 1.0


def test_another_background_and_a_turned_relation_are_wrong(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    (asked,) = draw_questions(sprites.vocabulary, 1, seed=2, groups=("pair",))
    reading = Detector(sprites).read(render(asked.scene, sprites, 128))
    other = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    turned = replace(asked.scene, relation=other[str(asked.scene.relation)], background="other")
    verdict = judge(turned, reading)
    assert verdict.objects
    assert verdict.counts
    assert not verdict.relation
    assert not verdict.background
    assert not verdict.all


def test_an_empty_picture_shows_no_object(artwork: Path) -> None:
    reading = Detector(load_sprites(artwork)).read(np.full((128, 128, 3), 255, np.uint8))
    assert (reading.background, reading.objects, reading.unrecognised) == ("white", (), 0)


def test_the_detector_refuses_what_is_not_a_square_rgb_picture(artwork: Path) -> None:
    detector = Detector(load_sprites(artwork))
    with pytest.raises(ValueError, match="square"):
        detector.read(np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="RGB bytes"):
        detector.read(np.zeros((64, 64, 3), np.float32))


def test_questions_are_repeatable_and_held_out_only_where_they_say(artwork: Path) -> None:
    vocabulary = load_sprites(artwork).vocabulary
    first = draw_questions(vocabulary, 5, seed=3, groups=LIKE_TRAINING)
    assert first == draw_questions(vocabulary, 5, seed=3, groups=LIKE_TRAINING)
    assert not any(scene_is_held_out(asked.scene, vocabulary) for asked in first)
    by_place = [" and " in asked.prompt for asked in first if asked.group == "pair by place"]
    assert by_place == [True] * 5
    assert not any(" and " in asked.prompt for asked in first if asked.group == "pair")


def test_pictures_come_from_a_server(artwork: Path) -> None:
    sprites = load_sprites(artwork)
    (asked,) = draw_questions(sprites.vocabulary, 1, seed=4, groups=("single",))

    class Composer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
        def Generate(
            self, request: orchestrator_pb2.GenerateRequest, context: grpc.ServicerContext
        ) -> Iterator[orchestrator_pb2.GenerateResponse]:
            assert (request.prompt, request.seed) == (asked.prompt, asked.seed)
            buffer = io.BytesIO()
            Image.fromarray(render(asked.scene, sprites, 128)).save(buffer, "PNG")
            image = orchestrator_pb2.GeneratedImage(png=buffer.getvalue())
            yield orchestrator_pb2.GenerateResponse(image=image)

    server = grpc.server(ThreadPoolExecutor(1))
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Composer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with MuseClient(f"127.0.0.1:{port}") as client:
        picture = server_painter(client)(asked)
    server.stop(0)
    assert judge(asked.scene, Detector(sprites).read(picture)).all
