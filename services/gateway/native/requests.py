"""Requests of Muse's own REST, and the gRPC options that they mean.

Fields and ranges are those of `muse.orchestrator.v1`; what depends on what is served, the
orchestrator checks.
"""

import secrets
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal

from muse.common.v1.caller_pb2 import Priority
from muse_client import (
    Caller,
    GenerateOptions,
    inpainting,
    mask_free_editing,
    outpainting,
    sampling,
    variation,
)
from muse_client.picture_files import PictureFormat
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from services.gateway.errors import invalid
from services.gateway.native.sampling import SamplingParameters
from services.gateway.openai.requests import LARGEST_DRAWN
from services.sampling import MAX_STEPS, SEEDS

MAX_CHARACTERS, MAX_IMAGES, MAX_ADAPTERS, MAX_CALLER = 4096, 16, 8, 64
MAX_SIDE_PX, MAX_FEATHER_PX = 16_384, 1024
Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
Weight = Annotated[FiniteFloat, Field(ge=-10, le=10)]
Pixels = Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]
Iteration = Annotated[int, Field(ge=0, le=MAX_STEPS)]


class ImageRequest(BaseModel):
    """What all requests have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(
        min_length=1, max_length=MAX_CHARACTERS, description="What the whole picture shows."
    )
    negative_prompt: str = Field(
        "", max_length=MAX_CHARACTERS, description="What the pictures must not show."
    )
    count: int = Field(
        1, ge=1, le=MAX_IMAGES, description="Pictures; picture i has the seed seed + i."
    )
    seed: int | None = Field(
        None, ge=0, lt=SEEDS, description="Seed of the first picture; drawn below 2^53 if absent."
    )
    base: SamplingParameters = Field(
        SamplingParameters(), description="Sampling parameters of base."
    )
    superres: SamplingParameters = Field(
        SamplingParameters(), description="Sampling parameters of superres."
    )
    best_of: int | None = Field(
        None,
        ge=1,
        le=MAX_IMAGES,
        description="Candidates, at least count; the count best come, best first. Needs a scorer.",
    )
    adapters: dict[str, Weight] = Field(
        {}, max_length=MAX_ADAPTERS, description="Weight of each low-rank adapter, by its name."
    )
    caller: str = Field("", max_length=MAX_CALLER, description="Name of the end user, for logs.")
    priority: Literal["interactive", "batch"] | None = Field(
        None, description="Batch requests wait for interactive ones; the caller's policy if absent."
    )
    output_format: PictureFormat = Field("png", description="Format of pictures and previews.")
    quality: int = Field(100, ge=0, le=100, description="Quality of JPEG and WebP.")
    stream: bool = Field(False, description="Answer with server-sent events.")
    preview_every: int = Field(
        0,
        ge=0,
        le=MAX_STEPS,
        description="Steps of base and superres between two previews of a stream; 0 for none.",
    )

    safety_policy: Literal["tag", "blur", "block"] | None = Field(
        None, description="What is done with explicit pictures: at least the server's policy."
    )

    @abstractmethod
    def edit(self, files: Mapping[str, bytes]) -> GenerateOptions:
        """Returns the option that is the edit; none for new pictures.

        Args:
            files: Contents of the form's files, `image` among them.

        Raises:
            InvalidRequest: a value does not fit its field.
        """

    def options(self) -> GenerateOptions:
        """Returns the options of the gRPC request, without its edit.

        Raises:
            ApiError: previews are asked for without a stream.
        """
        if self.preview_every and not self.stream:
            raise invalid("preview_every", "0 without stream", self.preview_every)
        caller = Caller(id=self.caller)
        if self.priority is not None:
            caller.priority = Priority.Value(f"PRIORITY_{self.priority.upper()}")
        options = GenerateOptions(
            negative_prompt=self.negative_prompt,
            seed=secrets.randbelow(LARGEST_DRAWN) if self.seed is None else self.seed,
            count=self.count,
            base=sampling(**self.base.model_dump(exclude_none=True)),
            superres=sampling(**self.superres.model_dump(exclude_none=True)),
            adapters=self.adapters,
            preview_every=self.preview_every,
            caller=caller,
            picture_format=self.output_format,
            quality=self.quality,
        )
        if self.best_of is not None:
            options["best_of"] = self.best_of
        if self.safety_policy is not None:
            options["safety_policy"] = self.safety_policy
        return options


class GenerateRequest(ImageRequest):
    """The body of `POST /v1/muse/generate`."""

    def edit(self, files: Mapping[str, bytes]) -> GenerateOptions:
        """Returns none."""
        return {}


class InpaintRequest(ImageRequest):
    """The fields of `POST /v1/muse/inpaint` beside its files `image` and `mask`.

    Without a mask the transparent pixels of the picture are repainted.
    """

    feather_px: int | None = Field(
        None,
        ge=0,
        le=MAX_FEATHER_PX,
        description="Seam inside the mask, in pixels; half a high-resolution token if absent.",
    )
    composite: bool = Field(True, description="Keep the pixels outside the mask as they are.")
    mask_is_alpha: bool = Field(
        False, description="Repaint the transparent pixels of the mask, not the white ones."
    )

    def edit(self, files: Mapping[str, bytes]) -> GenerateOptions:
        """Returns the inpainting."""
        message = inpainting(
            files["image"],
            files.get("mask"),
            feather_px=self.feather_px,
            composite=self.composite,
            mask_is_alpha=self.mask_is_alpha,
        )
        return {"inpaint": message}


class OutpaintRequest(ImageRequest):
    """The fields of `POST /v1/muse/outpaint` beside its file `image`: at least one side grows."""

    left_px: Pixels = Field(0, description="Pixels to add on the left.")
    top_px: Pixels = Field(0, description="Pixels to add at the top.")
    right_px: Pixels = Field(0, description="Pixels to add on the right.")
    bottom_px: Pixels = Field(0, description="Pixels to add at the bottom.")

    def edit(self, files: Mapping[str, bytes]) -> GenerateOptions:
        """Returns the outpainting."""
        message = outpainting(
            files["image"],
            left_px=self.left_px,
            top_px=self.top_px,
            right_px=self.right_px,
            bottom_px=self.bottom_px,
        )
        return {"outpaint": message}


class MaskFreeEditRequest(ImageRequest):
    """The fields of `POST /v1/muse/mask-free-edit` beside its file `image`."""

    iterations: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="Iterations; 100 if absent. Not beside strength."
    )
    fraction: Share | None = Field(
        None, description="Share of the tokens that each iteration resamples; 0.08 if absent."
    )
    return_iterations: list[Iteration] = Field(
        [],
        max_length=MAX_IMAGES,
        description="Iterations after which the picture is returned besides the last one.",
    )
    strength: Share | None = Field(None, description="Sets the iterations to 200 times itself.")

    def edit(self, files: Mapping[str, bytes]) -> GenerateOptions:
        """Returns the mask-free edit."""
        message = mask_free_editing(
            files["image"],
            iterations=self.iterations,
            fraction=self.fraction,
            return_iterations=self.return_iterations,
            strength=self.strength,
        )
        return {"mask_free_edit": message}


class VaryRequest(ImageRequest):
    """The fields of `POST /v1/muse/vary` beside its file `image`."""

    prompt: str = Field(
        "", max_length=MAX_CHARACTERS, description="What the whole picture shows; may be empty."
    )
    strength: Share | None = Field(
        None, description="Share of the tokens that are painted anew; 0.5 if absent."
    )

    def edit(self, files: Mapping[str, bytes]) -> GenerateOptions:
        """Returns the variation."""
        return {"vary": variation(files["image"], strength=self.strength)}
