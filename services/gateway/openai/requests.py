"""Requests of OpenAI's images API, with what Muse has beyond it, and the gRPC options they mean.

A field that is unknown is refused, so that a typing error is seen. `quality`, `style`, `moderation`
and `input_fidelity` are taken and have no effect: there is nothing in Muse that they could set.
"""

import secrets
from typing import Literal

from muse_client import Caller, GenerateOptions, Sampling, sampling
from muse_client.picture_files import PictureFormat
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from services.gateway.errors import ApiError, invalid
from services.gateway.served import Served

MAX_PARTIAL_IMAGES = 3
LARGEST_DRAWN = 2**53  # larger numbers of JSON lose digits in JavaScript


class ImageOptions(BaseModel):
    """What generations, edits and variations have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="Preset that is served, or an alias of it.")
    n: int = Field(1, ge=1, description="Number of pictures; picture i has the seed seed + i.")
    size: str | None = Field(None, description='"auto", or the side that is served: "256x256".')
    response_format: Literal["b64_json"] | None = Field(
        None, description="Pictures are in the answer, and kept at no address."
    )
    output_format: PictureFormat = Field("png", description="Format of the files.")
    output_compression: int = Field(100, ge=0, le=100, description="Quality of JPEG and WebP.")
    stream: bool = Field(False, description="Answer with server-sent events.")
    partial_images: int = Field(0, ge=0, le=MAX_PARTIAL_IMAGES, description="Previews of a stream.")
    user: str | None = Field(None, description="Name of the end user, for the servers' logs.")
    safety_identifier: str | None = Field(None, description="The same, and goes before it.")
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Has no effect: pictures are opaque."
    )
    quality: str | None = Field(None, description="Has no effect.")
    style: str | None = Field(None, description="Has no effect.")
    moderation: str | None = Field(None, description="Has no effect.")
    input_fidelity: str | None = Field(None, description="Has no effect.")

    seed: int | None = Field(None, ge=0, lt=2**64, description="Muse: of the first picture.")
    negative_prompt: str = Field("", description="Muse: what pictures must not show.")
    steps: int | None = Field(None, description="Muse: steps of base.")
    guidance_scale: float | None = Field(None, description="Muse: guidance scale of base.")
    base: dict[str, FiniteFloat] = Field({}, description="Muse: sampling parameters of base.")
    superres: dict[str, FiniteFloat] = Field({}, description="Muse: the same of superres.")
    best_of: int | None = Field(None, ge=1, description="Muse: candidates, of which n are chosen.")
    adapters: dict[str, FiniteFloat] = Field({}, description="Muse: weight of each adapter.")
    safety_policy: Literal["tag", "blur", "block"] | None = Field(
        None, description="Muse: for explicit pictures, at least the server's policy."
    )

    def options(self) -> GenerateOptions:
        """Returns the options of the gRPC request, without its edit.

        Raises:
            ApiError: `base` or `superres` has an unknown parameter, or one that is given twice.
            InvalidRequest: a value does not fit its field.
        """
        short = {"steps": self.steps, "guidance_scale": self.guidance_scale}
        given = {name: value for name, value in short.items() if value is not None}
        for name in given.keys() & self.base.keys():
            raise invalid(name, f"either {name} or base.{name}", "both")
        options = GenerateOptions(
            negative_prompt=self.negative_prompt,
            seed=secrets.randbelow(LARGEST_DRAWN) if self.seed is None else self.seed,
            count=self.n,
            adapters=self.adapters,
            base=_sampling("base", {**self.base, **given}),
            superres=_sampling("superres", self.superres),
            picture_format=self.output_format,
            quality=self.output_compression,
        )
        if self.best_of is not None:
            options["best_of"] = self.best_of
        if self.safety_policy is not None:
            options["safety_policy"] = self.safety_policy
        if user := self.safety_identifier or self.user:
            options["caller"] = Caller(id=user)
        return options

    def check(self, served: Served, aliases: tuple[str, ...]) -> None:
        """Checks model and size against what is served.

        Raises:
            ApiError: they are others.
        """
        if self.model is not None and self.model not in (served.preset, *aliases):
            raise unknown_model(self.model, served, aliases)
        self.check_size(served)

    def check_size(self, served: Served) -> None:
        """Checks the size of a new picture; see `check`."""
        side = f"{served.side_px}x{served.side_px}"
        if self.size not in (None, "auto", side):
            raise invalid("size", f"auto or {side}", self.size)


class GenerationRequest(ImageOptions):
    """The body of `POST /v1/images/generations`."""

    prompt: str = Field(description="What the pictures show.")


class PictureOptions(ImageOptions):
    """What edits and variations have in common."""

    strength: float | None = Field(None, description="Muse: of the change, 0 to 1.")

    def check_size(self, served: Served) -> None:
        """Checks that none is asked for: the result has the size of the picture."""
        if self.size not in (None, "auto"):
            raise invalid("size", "auto: an edit has the size of its picture", self.size)


class EditRequest(PictureOptions):
    """The fields of `POST /v1/images/edits` beside its files `image` and `mask`.

    With a mask its transparent pixels are painted anew. Without one the whole picture changes
    towards the prompt (mask-free editing), by `strength` or `iterations`.
    """

    prompt: str = Field(description="What the whole picture shows afterwards.")
    iterations: int | None = Field(None, description="Muse: of an edit without a mask.")
    fraction: float | None = Field(None, description="Muse: tokens that an iteration resamples.")
    feather_px: int | None = Field(None, description="Muse: seam inside the mask, in pixels.")


class VariationRequest(PictureOptions):
    """The fields of `POST /v1/images/variations` beside its file `image`."""

    prompt: str = Field("", description="Muse: what the pictures show.")


def unknown_model(model: str, served: Served, aliases: tuple[str, ...]) -> ApiError:
    """Returns the refusal of a model that is not served."""
    known = " or ".join((served.preset, *aliases))
    message = f"model: expected {known}, got {model}"
    return ApiError(404, message, code="model_not_found", param="model")


def _sampling(stage: str, parameters: dict[str, float]) -> Sampling:
    """Returns a message; a number of JSON or of a form is whole where the field wants it."""
    given = {name: int(each) if each % 1 == 0 else each for name, each in parameters.items()}
    try:
        return sampling(**given)
    except TypeError as error:  # no such parameter
        raise ApiError(400, f"{stage}: {error}", code="unknown_parameter", param=stage) from error
