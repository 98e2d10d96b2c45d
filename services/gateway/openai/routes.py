"""Routes of OpenAI's images API."""

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from muse_client import (
    AsyncMuseClient,
    GenerateOptions,
    inpainting,
    mask_free_editing,
    variation,
)
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway.disconnects import unless_gone
from services.gateway.errors import invalid
from services.gateway.forms import Form, read_form
from services.gateway.openai.answers import ImagesAnswer, Kind, preview_every, streamed, whole
from services.gateway.openai.requests import (
    EditRequest,
    GenerationRequest,
    ImageOptions,
    VariationRequest,
    unknown_model,
)
from services.gateway.openapi import ERRORS, answer, form_body
from services.gateway.served import ServedSystem
from services.gateway.streams import begun, event_stream

ClientOf = Callable[[Request], AsyncMuseClient]
PICTURES = answer(ImagesAnswer, "The pictures, or with `stream` events: see docs/http.md.")


class Model(BaseModel):
    """A name by which requests may call what is served."""

    id: str = Field(description="The preset that is served, or an alias of it.")
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["muse"] = "muse"


class ModelList(BaseModel):
    """All names by which requests may call what is served."""

    object: Literal["list"] = "list"
    data: list[Model] = Field(description="The preset first, then its aliases.")


def openai_routes(
    client_of: ClientOf, system: ServedSystem, *, aliases: tuple[str, ...] = ()
) -> APIRouter:
    """Returns the routes.

    Args:
        client_of: Returns the client that presents a request's credential.
        system: What is served.
        aliases: Names of models that mean what is served, besides its own.
    """
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)

    async def answered(
        request: Request,
        asked: ImageOptions,
        kind: Kind,
        prompt: str,
        edit: GenerateOptions | None = None,
    ) -> Response:
        served = await system.current()
        asked.check(served, aliases)
        options = asked.options()
        options.update(edit or {})
        if asked.stream:
            options["preview_every"] = preview_every(asked, served)
        events = client_of(request).events(prompt, **options)
        if asked.stream:
            return event_stream(streamed(await begun(request, events), asked, kind))
        pictures = await unless_gone(request, whole(events, asked))
        return JSONResponse(pictures.model_dump(exclude_none=True))

    @routes.post("/images/generations", response_model=None, responses=PICTURES)
    async def generate(request: Request, body: GenerationRequest) -> Response:
        """Generates pictures from a prompt."""
        return await answered(request, body, "image_generation", body.prompt)

    @routes.post(
        "/images/edits",
        response_model=None,
        responses=PICTURES,
        openapi_extra=form_body(EditRequest, "mask"),
    )
    async def edit(request: Request) -> Response:
        """Repaints the transparent part of a mask; without a mask changes the whole picture."""
        form = await read_form(request, EditRequest, files=("image", "mask"))
        asked = form.fields
        return await answered(request, asked, "image_edit", asked.prompt, _edit(form))

    @routes.post(
        "/images/variations",
        response_model=None,
        responses=PICTURES,
        openapi_extra=form_body(VariationRequest),
    )
    async def vary(request: Request) -> Response:
        """Paints a share of a picture anew."""
        form = await read_form(request, VariationRequest, files=("image",))
        asked = form.fields
        edit = GenerateOptions(vary=variation(form.required("image"), strength=asked.strength))
        return await answered(request, asked, "image_edit", asked.prompt, edit)

    @routes.get("/models")
    async def models() -> ModelList:
        """Lists the preset that is served, and its aliases."""
        served = await system.current()
        return ModelList(data=[Model(id=each) for each in (served.preset, *aliases)])

    @routes.get("/models/{model}")
    async def model(model: str) -> Model:
        """Describes a model."""
        served = await system.current()
        if model not in (served.preset, *aliases):
            raise unknown_model(model, served, aliases)
        return Model(id=model)

    return routes


def _edit(form: Form[EditRequest]) -> GenerateOptions:
    asked = form.fields
    image = form.required("image")
    mask = form.files.get("mask")
    others = ("strength", "iterations", "fraction") if mask is not None else ("feather_px",)
    for name in others:
        if getattr(asked, name) is not None:
            raise invalid(name, f"none {'with' if mask is not None else 'without'} a mask", "one")
    if mask is not None:
        message = inpainting(image, mask, feather_px=asked.feather_px, mask_is_alpha=True)
        return GenerateOptions(inpaint=message)
    return GenerateOptions(
        mask_free_edit=mask_free_editing(
            image,
            iterations=asked.iterations,
            fraction=asked.fraction,
            strength=asked.strength,
        )
    )
