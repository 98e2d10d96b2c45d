"""What happens during a request, in this order: Started, Step ..., Picture ..., Finished."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from muse.common.v1.stage_pb2 import StageCall, StageTiming
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1.orchestrator_pb2 import (
    DecodeReceipt,
    GenerateResponse,
    Progress,
    Receipt,
)
from PIL import Image


@dataclass(frozen=True)
class Started:
    """The request is valid and begins.

    Attributes:
        seed: Of the first picture; drawn by the server if the caller gave none.
        count: Pictures to come.
    """

    seed: int
    count: int


@dataclass(frozen=True)
class Preview:
    """A picture under way.

    Attributes:
        image: What is seen so far, grey where nothing is decided; of an edit in the shape of its
            result, reduced if that is larger than the square that the stages work on.
        tokens: Its tokens, on that square; what stands at unknown places does not matter.
        known: One byte a token: 1 where it is decided.
    """

    image: Image.Image = field(repr=False)
    tokens: TokenGrid = field(repr=False)
    known: bytes = field(repr=False)


@dataclass(frozen=True)
class Step:
    """A stage took a step for one picture.

    Attributes:
        index: Which picture, from 0.
        stage: "text_encoder", "base", "superres" or "tokenizer".
        step: Steps taken.
        total: Steps in all.
        part: Of a picture painted in several parts, which one, from 0.
        parts: How many there are.
        preview: What is decided after it, if it was asked for.
    """

    index: int
    stage: str
    step: int
    total: int
    part: int = 0
    parts: int = 1
    preview: Preview | None = None


@dataclass(frozen=True)
class Picture:
    """A finished picture.

    Attributes:
        index: Which one, from 0.
        seed: What made it: alone it makes the same one again.
        image: Its pixels.
        png: Its file, metadata included.
        timings: Where its time went, stage by stage; their queue_s, compute_s and transfer_s, and
            glue_s, add up to wall_s.
        decodes: Steps and digest of the tokens of base and superres.
        iteration: Of a mask-free edit: after which iteration it was taken.
        rank: With `best_of`: how many pictures are better.
        score: With `best_of`: what the scorer says of it.
        wall_s: From the arrival of the request until it was handed out.
        glue_s: Of that, what it spent in no call of a stage.
        calls: The calls of stages made for it, in the order in which they ended.
    """

    index: int
    seed: int
    image: Image.Image = field(repr=False)
    png: bytes = field(repr=False)
    timings: tuple[StageTiming, ...] = field(repr=False)
    decodes: tuple[DecodeReceipt, ...] = field(repr=False)
    iteration: int | None = None
    rank: int | None = None
    score: float | None = None
    wall_s: float = 0.0
    glue_s: float = 0.0
    calls: tuple[StageCall, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Finished:
    """All pictures are done.

    Attributes:
        total_s: From the server's acceptance to its last picture.
        receipt: Preset, digests of the checkpoints, every knob.
        device_s: Seconds of each stage's device that the request used, by the stage's name.
    """

    total_s: float
    receipt: Receipt
    device_s: Mapping[str, float] = field(default_factory=dict)


Event = Started | Step | Picture | Finished


def in_order(pictures: Iterable[Picture]) -> list[Picture]:
    """Returns pictures by rank if they have one, then by index, those of one edit by iteration."""
    return sorted(pictures, key=lambda each: (each.rank or 0, each.index, each.iteration or 0))


def read_event(response: GenerateResponse) -> Event:
    """Returns what a message of the stream says.

    Raises:
        ValueError: it is of a kind that this version of the client does not know.
    """
    kind = response.WhichOneof("event")
    if kind == "accepted":
        return Started(seed=response.accepted.seed, count=response.accepted.count)
    if kind == "progress":
        progress = response.progress
        return Step(
            index=progress.image,
            stage=progress.stage,
            step=progress.step,
            total=progress.total,
            part=progress.part,
            parts=max(1, progress.parts),
            preview=_preview(progress) if progress.HasField("preview") else None,
        )
    if kind == "image":
        made = response.image
        image = _image(made.png)
        timings, decodes = tuple(made.timings), tuple(made.decodes)
        return Picture(
            made.index,
            made.seed,
            image,
            made.png,
            timings,
            decodes,
            iteration=made.iteration if made.HasField("iteration") else None,
            rank=made.rank if made.HasField("rank") else None,
            score=made.score if made.HasField("score") else None,
            wall_s=made.wall_s,
            glue_s=made.glue_s,
            calls=tuple(made.calls),
        )
    if kind == "done":
        done = response.done
        return Finished(total_s=done.total_s, receipt=done.receipt, device_s=dict(done.device_s))
    raise ValueError(f"the server sent an event this client does not know: {response}")


def _preview(progress: Progress) -> Preview:
    preview = progress.preview
    return Preview(image=_image(preview.png), tokens=preview.tokens, known=preview.known)


def _image(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image
