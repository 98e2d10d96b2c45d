"""What the benchmarks share and run without PyTorch, at sizes that take no time."""

import re
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from muse.common.v1.stage_pb2 import StageTiming
from muse_client import Overloaded
from muse_client.events import GeneratedImage
from prometheus_client import start_http_server

from benchmarks.base_decode import TINY, print_ratios, print_share
from benchmarks.ceiling import matrix_ceiling
from benchmarks.edit_memory import answered, corner_mask, noise
from benchmarks.inflight import in_flight, poisson, whole_requests
from benchmarks.measuring import Spread, conditions, in_turns
from benchmarks.metrics import Scraper
from benchmarks.ours import OurDecode, Text, random_text
from benchmarks.overhead import account
from benchmarks.pairing import Comparison, pairs
from services.decoding.state import Sampling
from services.orchestrator.edits.pictures import read_mask, read_picture
from tools.description import arithmetic


@pytest.fixture(scope="module")
def ours() -> OurDecode:
    return OurDecode(TINY)


@pytest.fixture(scope="module")
def text() -> Text:
    return random_text(TINY)


def test_contenders_take_turns_after_one_call_each_that_does_not_count() -> None:
    called: list[str] = []
    contenders = {name: lambda name=name: called.append(name) for name in "ABC"}
    spreads = in_turns(contenders, rounds=3)
    assert "".join(called) == "ABC" * 4
    assert {name: len(spread.values) for name, spread in spreads.items()} == dict.fromkeys("ABC", 3)


def test_both_stacks_are_asked_for_the_same_pictures_and_begin_in_turns() -> None:
    asked: list[tuple[str, int]] = []

    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        def generate(self, prompt: str, *, seed: int) -> None:
            asked.append((self.name, seed))

    without, traced = Client("without"), Client("traced")
    found = pairs(without, traced, "an owl", range(3, 5))  # type: ignore[arg-type]

    assert len(found) == 2
    assert all(seconds >= 0 for pair in found for seconds in pair)
    assert [seed for _, seed in asked] == [3, 3, 4, 4]
    assert [name for name, _ in asked] == ["without", "traced", "traced", "without"]


def test_an_endpoint_is_read_again_and_again_and_one_that_is_away_ends_the_run() -> None:
    server, thread = start_http_server(0, "127.0.0.1")
    scraper = Scraper([f"http://127.0.0.1:{server.server_port}/metrics"])
    with scraper.reading():
        deadline_s = time.monotonic() + 20
        while scraper.scrapes < 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    assert scraper.size > 0
    server.shutdown()
    server.server_close()
    thread.join()

    away = Scraper([f"http://127.0.0.1:{server.server_port}/metrics"])
    with (
        pytest.raises(RuntimeError, match="an endpoint was not scraped"),
        away.reading(),
    ):
        away.thread.join(20)


def test_what_exports_is_compared_pair_by_pair(capsys: pytest.CaptureFixture[str]) -> None:
    cpu_ms = ({"base": 90.0, "tokenizer": 10.0}, {"base": 91.0, "tokenizer": 10.5})
    Comparison(seconds=[(1.0, 1.01), (2.0, 1.98), (1.0, 1.03)], cpu_ms=cpu_ms).print(
        Path("checkpoints/demo"), "metered"
    )
    said = capsys.readouterr().out
    assert "metered takes 1.0100 (0.9900-1.0300) times as long (target <= 1.01)" in said
    assert re.search(r"all +100.0 +101.5 +\+1.5", said)


def test_a_spread_is_told_as_its_median_and_range() -> None:
    assert f"{Spread([3.0, 1.0, 2.25]):.1f}" == "2.2 (1.0-3.0)"


def test_conditions_name_the_day_the_cpus_and_the_versions() -> None:
    assert re.match(
        r"\d{4}-\d\d-\d\d · \d+ CPUs .* · Python 3\.\d+\.\d+ · jax \d", conditions("jax")
    )


def test_our_contender_decodes_the_whole_image_and_the_seed_decides_which(
    ours: OurDecode, text: Text
) -> None:
    images = [
        ours.image(text, Sampling(steps=4, guidance_scale=4.0, seed=seed)) for seed in (7, 7, 8)
    ]
    assert all(image.shape == (TINY.tokens,) and image.max() < TINY.vocabulary for image in images)
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_every_library_multiplies_and_the_share_is_of_the_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert all(rate > 0 for rate in matrix_ceiling((8, 16)).values())
    assert matrix_ceiling((8,), precision="bfloat16").keys() == {"jax"}
    flops = arithmetic.base_decode(TINY).image(4)
    print_share(TINY, 4, Spread([2.0]), {"numpy": flops / 8, "jax": flops}, "float32")
    assert "share of the ceiling: 50% (target >= 85%)" in capsys.readouterr().out


def test_the_faster_of_a_kind_of_peer_counts(capsys: pytest.CaptureFixture[str]) -> None:
    print_ratios(
        {name: Spread([s]) for name, s in (("ours", 1), ("torch eager", 4), ("torch compiled", 2))},
        "float32",
    )
    assert capsys.readouterr().out == "ratio ours / torch compiled: 0.50 (target <= 0.8)\n"


def test_overhead_is_what_the_stages_do_not_compute_and_its_parts_sum_up() -> None:
    timings = tuple(
        StageTiming(stage=stage, queue_s=0.001, compute_s=0.04, transfer_s=0.002)
        for stage in ("base", "superres")
    )
    picture = GeneratedImage(index=0, seed=1, file=b"", timings=timings)
    request = account(0.1, picture)
    assert request.overhead == pytest.approx(20)
    assert request.rest == pytest.approx(request.overhead - request.queue - request.transfer) == 14


def test_both_ways_of_batching_answer_every_request() -> None:
    requests = poisson(20, 200)
    for way in (in_flight, whole_requests):
        assert (way(requests).latencies_s > 0).all()


def test_the_pictures_of_the_memory_figure_are_files_as_large_as_their_pixels() -> None:
    assert len(noise(128)) > 128 * 128 * 3
    assert read_picture(noise(128), "image").rgb.shape == (128, 128, 3)
    assert read_mask(corner_mask(128), "mask", (128, 128)).sum() == 64 * 64


def test_edits_refused_for_memory_are_not_counted_as_painted() -> None:
    turns = iter([None, Overloaded(grpc.StatusCode.RESOURCE_EXHAUSTED, "later"), None])

    def edit() -> None:
        refusal = next(turns)
        if refusal is not None:
            raise refusal

    assert answered(edit, 3) == 2
