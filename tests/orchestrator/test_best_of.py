"""The best of several pictures: painted all, scored, and the best handed out in order."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import MaskFreeEdit
from muse_client import AsyncMuseClient

from services.orchestrator.callers.credentials import Credentials
from services.orchestrator.callers.gate import CallerGate
from services.orchestrator.compatibility import StageCompatibility
from services.orchestrator.scoring import load_scorer
from services.orchestrator.servicer import OrchestratorServicer
from services.orchestrator.stage_clients import StageClients
from services.runtime.server.interceptors import CallCount, EndlessCalls, server_interceptors
from services.runtime.server.requests import RequestReader
from tests.small_stages import House

FAVOURITE = 9


class Nearest:
    """A scorer that likes one shade; the small stages paint the shade of the seed."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def scores(self, prompt: str, pictures: Sequence[np.ndarray]) -> list[float]:
        self.asked.append(prompt)
        return [-abs(float(picture.mean()) - FAVOURITE) for picture in pictures]


@pytest.fixture
async def choosy(house: House) -> AsyncIterator[tuple[str, Nearest]]:
    """The address of an orchestrator over the house's stages that has a scorer, and that."""
    from muse.orchestrator.v1.orchestrator_pb2_grpc import (
        add_OrchestratorServiceServicer_to_server,
    )

    stages = StageClients({name: f"127.0.0.1:{line.port}" for name, line in house.lines.items()})
    scorer, compatibility = Nearest(), StageCompatibility(stages)
    gate = CallerGate(Credentials(), max_calls=256)
    server = grpc.aio.server(
        interceptors=server_interceptors(
            CallCount(), EndlessCalls(), RequestReader(), admit=gate.admitting
        )
    )
    add_OrchestratorServiceServicer_to_server(
        OrchestratorServicer(stages, compatibility, scorer), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", scorer
    await server.stop(None)
    await compatibility.close()
    await stages.close()


async def test_the_best_come_best_first_with_their_score_and_seed(
    choosy: tuple[str, Nearest],
) -> None:
    address, scorer = choosy
    async with AsyncMuseClient(address) as client:
        best = await client.generate("a fox", seed=4, count=3, best_of=8)
        (alone,) = await client.generate("a fox", seed=FAVOURITE)

    assert [(each.rank, each.seed, each.index) for each in best] == [
        (0, FAVOURITE, 5),
        (1, 8, 4),
        (2, 10, 6),
    ]
    assert [each.score for each in best] == [0, -1, -1]
    assert best[0].png == alone.png
    assert alone.rank is None
    assert scorer.asked == ["a fox"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 3, "best_of": 2},
        {"best_of": 17},
        {"best_of": 4, "mask_free_edit": MaskFreeEdit(return_iterations=[5])},
    ],
)
async def test_what_cannot_be_chosen_of_is_refused(house: House, wrong: dict[str, Any]) -> None:
    refusal = await house.refusal(**wrong)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refusal.violations] == ["best_of"]
    assert house.calls() == 0


async def test_a_server_without_a_scorer_says_how_to_have_one(house: House) -> None:
    refusal = await house.refusal(best_of=4)

    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
    assert "--scorer clip:FOLDER" in refusal.message
    assert house.calls() == 0
    assert await house.works()


def test_no_scorer_is_none_and_an_unknown_one_is_refused() -> None:
    assert load_scorer("") is None
    for name in ("clip", "clip:", "taste:me"):
        with pytest.raises(ValueError, match=r"scorer: expected clip:FOLDER"):
            load_scorer(name)


def test_clip_without_its_packages_says_what_to_install_and_without_files_where(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"pip install 'muse\[clip\]'|no CLIP checkpoint in"):
        load_scorer(f"clip:{tmp_path}")


def test_clip_scores_pictures_by_their_own_cosine_whatever_the_company(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    save_tiny_clip(transformers, tmp_path)
    scorer = load_scorer(f"clip:{tmp_path}")
    assert scorer is not None
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (24, 24, 3)).astype(np.uint8) for _ in range(3)]

    together = scorer.scores("a fox", pictures)
    alone = [scorer.scores("a fox", [picture])[0] for picture in pictures]

    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert all(-1.001 <= score <= 1.001 for score in together)
    assert len(set(together)) == 3
    assert len(scorer.scores("fox " * 500, pictures)) == 3


def save_tiny_clip(transformers: Any, folder: Path) -> None:
    """Writes a small CLIP checkpoint of random weights, with a vocabulary of letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    import json

    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
    )
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(str(folder))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "projection_dim": 8}
    config = transformers.CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
            "eos_token_id": len(words) - 1,
            "bos_token_id": len(words) - 2,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    transformers.CLIPModel(config).save_pretrained(str(folder))
