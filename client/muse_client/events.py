"""The events of a request, in this order: Accepted, Progress ..., GeneratedImage ..., Done."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from muse.common.v1.stage_pb2 import StageCall, StageTiming
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1 import orchestrator_pb2
from PIL import Image


@dataclass(frozen=True)
class Accepted:
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
        png: File of what is seen so far, grey where nothing is decided; of an edit in the shape of
            its result, reduced if that is larger than the square that the stages work on.
        tokens: Its tokens, on that square; what stands at unknown places does not matter.
        known: One byte a token: 1 where it is decided.
    """

    png: bytes = field(repr=False)
    tokens: TokenGrid = field(repr=False)
    known: bytes = field(repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """Pixels of the preview, decoded when first asked for."""
        return decode_image(self.png)


@dataclass(frozen=True)
class Progress:
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


@dataclass(frozen=True, kw_only=True)
class GeneratedImage:
    """A finished picture.

    Attributes:
        index: Which one, from 0.
        seed: What made it: alone it makes the same one again.
        png: Its file, metadata included.
        timings: Where its time went, stage by stage; their queue_s, compute_s and transfer_s, and
            overhead_s, add up to wall_s.
        decodes: Steps and digest of the tokens of base and superres.
        iteration: Of a mask-free edit: after which iteration it was taken.
        rank: With `best_of`: how many pictures are better.
        score: With `best_of`: what the scorer says of it.
        wall_s: From the arrival of the request until it was handed out.
        overhead_s: Of that, what it spent in no call of a stage.
        calls: The calls of stages made for it, in the order in which they ended.
    """

    index: int
    seed: int
    png: bytes = field(repr=False)
    timings: tuple[StageTiming, ...] = field(default=(), repr=False)
    decodes: tuple[orchestrator_pb2.DecodeProvenance, ...] = field(default=(), repr=False)
    iteration: int | None = None
    rank: int | None = None
    score: float | None = None
    wall_s: float = 0.0
    overhead_s: float = 0.0
    calls: tuple[StageCall, ...] = field(default=(), repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """Pixels of the picture, decoded when first asked for."""
        return decode_image(self.png)


@dataclass(frozen=True)
class Done:
    """All pictures are done.

    Attributes:
        total_s: From the server's acceptance to its last picture.
        provenance: Preset, digests of the checkpoints, every sampling parameter.
        device_s: Seconds of each stage's device that the request used, by the stage's name.
    """

    total_s: float
    provenance: orchestrator_pb2.Provenance
    device_s: Mapping[str, float] = field(default_factory=dict)


Event = Accepted | Progress | GeneratedImage | Done


def in_order(images: Iterable[GeneratedImage]) -> list[GeneratedImage]:
    """Returns images by rank if they have one, then by index, those of one edit by iteration."""
    return sorted(images, key=lambda each: (each.rank or 0, each.index, each.iteration or 0))


def read_event(response: orchestrator_pb2.GenerateResponse) -> Event:
    """Decodes a message of the stream.

    Raises:
        ValueError: it is of a kind that this version of the client does not know.
    """
    match response.WhichOneof("event"):
        case "accepted":
            return Accepted(seed=response.accepted.seed, count=response.accepted.count)
        case "progress":
            return _progress(response.progress)
        case "image":
            return _image(response.image)
        case "done":
            done = response.done
            return Done(
                total_s=done.total_s, provenance=done.provenance, device_s=dict(done.device_s)
            )
    raise ValueError(f"the server sent an event this client does not know: {response}")


def decode_image(png: bytes) -> Image.Image:
    """Decodes a PNG file."""
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def _progress(progress: orchestrator_pb2.Progress) -> Progress:
    preview = None
    if progress.HasField("preview"):
        seen = progress.preview
        preview = Preview(png=seen.png, tokens=seen.tokens, known=seen.known)
    return Progress(
        index=progress.image,
        stage=progress.stage,
        step=progress.step,
        total=progress.total,
        part=progress.part,
        parts=max(1, progress.parts),
        preview=preview,
    )


def _image(made: orchestrator_pb2.GeneratedImage) -> GeneratedImage:
    return GeneratedImage(
        index=made.index,
        seed=made.seed,
        png=made.png,
        timings=tuple(made.timings),
        decodes=tuple(made.decodes),
        iteration=made.iteration if made.HasField("iteration") else None,
        rank=made.rank if made.HasField("rank") else None,
        score=made.score if made.HasField("score") else None,
        wall_s=made.wall_s,
        overhead_s=made.overhead_s,
        calls=tuple(made.calls),
    )
