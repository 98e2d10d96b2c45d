"""Answers of Muse's own REST, and the events of its streams."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from services.gateway.openapi import ErrorBody


class Accepted(BaseModel):
    """The request is valid and begins: the first event of a stream."""

    seed: int = Field(description="Seed of the first picture.")
    count: int = Field(description="Number of pictures.")


class RequestWarning(BaseModel):
    """A doubt about the request, which is served nevertheless."""

    reason: str = Field(description='Kind of the warning, such as "UNKNOWN_WORDS".')
    message: str = Field(description="What is doubtful.")
    words: list[str] = Field(description="Words that the checkpoint does not know.")


class Step(BaseModel):
    """A step of one picture that a stage finished."""

    index: int = Field(description="Index of the picture, from 0.")
    stage: str = Field(description="text_encoder, base, superres or tokenizer.")
    step: int = Field(description="Steps finished.")
    total: int = Field(description="Steps of this stage in all.")
    part: int = Field(description="Index of the part, from 0, such as a window of an outpainting.")
    parts: int = Field(description="Number of parts.")


class Progress(Step):
    """A stage finished a step of one picture."""

    preview: str | None = Field(
        None, description="The picture after the step in base64, grey where it is unknown."
    )


class StageTiming(BaseModel):
    """Time of one picture in a stage, in seconds."""

    stage: str = Field(description="text_encoder, base, superres or tokenizer.")
    queue_s: float = Field(description="Until its compute started.")
    compute_s: float = Field(description="On the device.")
    transfer_s: float = Field(description="Network, serialisation and failed attempts.")
    device_s: float = Field(description="Share of the device's time.")


class ImageDetails(BaseModel):
    """What is known of a finished picture besides its pixels."""

    index: int = Field(description="Index of the picture, from 0.")
    seed: int = Field(description="Seed that gives this picture again.")
    iteration: int | None = Field(None, description="Iteration of a mask-free edit.")
    rank: int | None = Field(None, description="Number of better pictures, with best_of.")
    score: float | None = Field(None, description="Score of the picture, with best_of.")
    safety_score: float | None = Field(None, description="Score of the safety classifier.")
    blurred: bool = Field(False, description="Whether the safety policy blurred the picture.")
    width_px: int = Field(description="Width in pixels.")
    height_px: int = Field(description="Height in pixels.")
    timings: list[StageTiming] = Field(description="Time of the picture in each stage.")
    overhead_s: float = Field(description="Seconds in which no stage worked on the picture.")
    wall_s: float = Field(description="Seconds from the request's arrival to the picture.")


class GeneratedImage(ImageDetails):
    """A finished picture."""

    image: str = Field(description="The picture's file in base64.")


class Done(BaseModel):
    """All pictures are finished: the last event of a stream."""

    preset: str = Field(description="Preset of the stages.")
    total_s: float = Field(description="Seconds from the request's arrival to its last picture.")
    device_s: dict[str, float] = Field(description="Device seconds by stage, previews included.")


class Answer(Done):
    """The whole answer but for its pictures."""

    seed: int = Field(description="Seed of the first picture.")
    warnings: list[RequestWarning] = Field(description="Doubts about the request.")


class Images(Answer):
    """The whole answer."""

    images: list[GeneratedImage] = Field(description="The pictures, best first with best_of.")


EVENTS: Mapping[str, type[BaseModel]] = {
    "accepted": Accepted,
    "warning": RequestWarning,
    "progress": Progress,
    "image": GeneratedImage,
    "done": Done,
    "error": ErrorBody,
}
