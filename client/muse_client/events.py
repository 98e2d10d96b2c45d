"""The events of a request: Accepted, RequestWarning ..., Progress and GeneratedImage ..., Done."""

import io
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TypeGuard

from muse.common.v1.stage_pb2 import StageCall, StageTiming
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1 import orchestrator_pb2
from PIL import Image

from muse_client.errors import invalid_request
from muse_client.picture_files import FORMATS, QUALITY, converted


@dataclass(frozen=True)
class Accepted:
    """The request is valid and begins.

    Attributes:
        seed: Seed of the first image; drawn by the server if the caller gave none.
        count: Number of images.
    """

    seed: int
    count: int


@dataclass(frozen=True)
class RequestWarning:
    """The server doubts that its images show what the prompt says, or keeps a part of them back.

    Attributes:
        reason: Kind of the warning, such as "UNKNOWN_WORDS" or "PICTURE_BLOCKED"; a later
            server may send others.
        message: What is doubtful, and what the checkpoint knows.
        words: Words that the checkpoint does not know, with "UNKNOWN_WORDS".
    """

    reason: str
    message: str
    words: tuple[str, ...] = ()


class MuseWarning(UserWarning):
    """Python warning by which `generate` and the methods of edits report a `RequestWarning`."""


@dataclass(frozen=True)
class Preview:
    """Preview of an image in progress.

    Attributes:
        png: PNG file, grey at unknown tokens. The preview of an edit has the shape of its result,
            reduced if the result is larger than the stages' square canvas.
        tokens: Tokens of the canvas; the values of unknown tokens do not matter.
        known: One byte for each token: 1 where it is known.
    """

    png: bytes = field(repr=False)
    tokens: TokenGrid = field(repr=False)
    known: bytes = field(repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """The decoded preview; decoded at first use."""
        return decode_image(self.png)


@dataclass(frozen=True)
class Progress:
    """A stage finished a step of one image.

    Attributes:
        index: Index of the image, from 0.
        stage: "text_encoder", "base", "superres" or "tokenizer".
        step: Steps finished.
        total: Steps of this stage in all.
        part: Index of the part in progress, from 0, of an image made in several parts.
        parts: Number of parts.
        preview: Preview after the step, if the request asked for one.
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
    """A finished image.

    Attributes:
        index: Index of the image, from 0.
        seed: Seed of the image; the same request with this seed makes the same image.
        file: The picture's file in the format that was asked for, with metadata.
        timings: Timing of each stage; the sum of their queue_s, compute_s and transfer_s and of
            overhead_s is wall_s.
        decodes: Steps, and digest of the tokens, of base and superres.
        iteration: Iteration of a mask-free edit after which the image was taken.
        rank: Number of better images, with `best_of`.
        score: Score of the image, with `best_of`.
        wall_s: Seconds from the arrival of the request until the image was sent.
        overhead_s: Seconds of wall_s during which no call of a stage ran.
        calls: Calls of stages that were made for the image, in the order in which they ended.
        safety_score: Score of the server's safety classifier, 0 to 1; None without a classifier.
        blurred: Whether the server blurred the image because of that score.
    """

    index: int
    seed: int
    file: bytes = field(repr=False)
    timings: tuple[StageTiming, ...] = field(default=(), repr=False)
    decodes: tuple[orchestrator_pb2.DecodeProvenance, ...] = field(default=(), repr=False)
    iteration: int | None = None
    rank: int | None = None
    score: float | None = None
    wall_s: float = 0.0
    overhead_s: float = 0.0
    calls: tuple[StageCall, ...] = field(default=(), repr=False)
    safety_score: float | None = None
    blurred: bool = False

    @cached_property
    def image(self) -> Image.Image:
        """The decoded picture, for Pillow, which writes files without the metadata of `file`."""
        return decode_image(self.file)

    @cached_property
    def png(self) -> bytes:
        """A PNG file of the picture: `file` itself, or made of it if that has another format."""
        return converted(self.file, "png")

    def save(self, file: str | PathLike[str], *, quality: int = QUALITY) -> None:
        """Writes the picture with what it says of its origin; the suffix gives the format.

        In the format that was asked for (`picture_format`) it is `file` unchanged, so a C2PA
        manifest in it stays valid; in another one it has the same XMP packet.

        Args:
            file: Name of the file.
            quality: Of JPEG and WebP, 0 to 100, in another format than that of `file`.

        Raises:
            InvalidRequest: the suffix is of another format, or that cannot hold the picture.
            OSError: the file cannot be written.
        """
        path = Path(file)
        if (picture_format := FORMATS.get(path.suffix.lower())) is None:
            expected = ", ".join(FORMATS)
            raise invalid_request("file", f"expected a name that ends in {expected}, got {path}")
        path.write_bytes(converted(self.file, picture_format, quality))


@dataclass(frozen=True)
class Done:
    """All images of the request are finished.

    Attributes:
        total_s: Seconds from the arrival of the request to its last image.
        provenance: Preset, digests of the checkpoints, and every sampling parameter.
        device_s: Device seconds that the request used, by stage.
    """

    total_s: float
    provenance: orchestrator_pb2.Provenance
    device_s: Mapping[str, float] = field(default_factory=dict)


Event = Accepted | RequestWarning | Progress | GeneratedImage | Done


def is_image(event: Event) -> TypeGuard[GeneratedImage]:
    """Returns whether an event is an image; reports a `RequestWarning` as a Python warning."""
    if isinstance(event, RequestWarning):
        warnings.warn(event.message, MuseWarning, stacklevel=3)
    return isinstance(event, GeneratedImage)


def in_order(images: Iterable[GeneratedImage]) -> list[GeneratedImage]:
    """Sorts images by rank, then by index, then by iteration."""
    return sorted(images, key=lambda each: (each.rank or 0, each.index, each.iteration or 0))


def read_event(response: orchestrator_pb2.GenerateResponse) -> Event:
    """Decodes an event of the stream.

    Raises:
        ValueError: this version of the client does not know the event.
    """
    match response.WhichOneof("event"):
        case "accepted":
            return Accepted(seed=response.accepted.seed, count=response.accepted.count)
        case "warning":
            warning = response.warning
            return RequestWarning(
                reason=warning.reason, message=warning.message, words=tuple(warning.words)
            )
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


def decode_image(file: bytes) -> Image.Image:
    """Decodes a received file."""
    image = Image.open(io.BytesIO(file))
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
        file=made.file or made.png,
        timings=tuple(made.timings),
        decodes=tuple(made.decodes),
        iteration=made.iteration if made.HasField("iteration") else None,
        rank=made.rank if made.HasField("rank") else None,
        score=made.score if made.HasField("score") else None,
        wall_s=made.wall_s,
        overhead_s=made.overhead_s,
        calls=tuple(made.calls),
        safety_score=made.safety_score if made.HasField("safety_score") else None,
        blurred=made.blurred,
    )
