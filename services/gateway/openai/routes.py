"""Routes of OpenAI's images API."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from muse_client import (
    AsyncMuseClient,
    Event,
    GenerateOptions,
    inpainting,
    mask_free_editing,
    variation,
)
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from services.gateway.disconnects import unless_gone
from services.gateway.errors import invalid
from services.gateway.openai.answers import Kind, preview_every, streamed, whole
from services.gateway.openai.forms import Form, read_form
from services.gateway.openai.requests import (
    EditRequest,
    GenerationRequest,
    ImageOptions,
    VariationRequest,
    unknown_model,
)
from services.gateway.served import ServedSystem

AnyRequest = TypeVar("AnyRequest", bound=ImageOptions)
ClientOf = Callable[[Request], AsyncMuseClient]


def openai_routes(
    client_of: ClientOf, system: ServedSystem, *, aliases: tuple[str, ...] = ()
) -> APIRouter:
    """Returns the routes.

    Args:
        client_of: Returns the client that presents a request's credential.
        system: What is served.
        aliases: Names of models that mean what is served, besides its own.
    """
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])

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
        if not asked.stream:
            return JSONResponse(await unless_gone(request, whole(events, asked)))
        # What is refused at its arrival has a status of its own, as without a stream.
        first = await unless_gone(request, anext(events))
        return StreamingResponse(
            streamed(_after(first, events), asked, kind),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    @routes.post("/images/generations", response_model=None)
    async def generate(request: Request, body: GenerationRequest) -> Response:
        """Generates pictures from a prompt."""
        return await answered(request, body, "image_generation", body.prompt)

    @routes.post("/images/edits", response_model=None, openapi_extra=_form_of(EditRequest, "mask"))
    async def edit(request: Request) -> Response:
        """Repaints the transparent part of a mask; without a mask changes the whole picture."""
        form = await read_form(request, files=("image", "mask"))
        asked = _validated(EditRequest, form)
        return await answered(request, asked, "image_edit", asked.prompt, _edit(asked, form))

    @routes.post(
        "/images/variations", response_model=None, openapi_extra=_form_of(VariationRequest)
    )
    async def vary(request: Request) -> Response:
        """Paints a share of a picture anew."""
        form = await read_form(request, files=("image",))
        asked = _validated(VariationRequest, form)
        edit = GenerateOptions(vary=variation(form.required("image"), strength=asked.strength))
        return await answered(request, asked, "image_edit", asked.prompt, edit)

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """Lists the preset that is served, and its aliases."""
        served = await system.current()
        return {"object": "list", "data": [_model(each) for each in (served.preset, *aliases)]}

    @routes.get("/models/{model}")
    async def model(model: str) -> dict[str, Any]:
        """Describes a model."""
        served = await system.current()
        if model not in (served.preset, *aliases):
            raise unknown_model(model, served, aliases)
        return _model(model)

    return routes


def _edit(asked: EditRequest, form: Form) -> GenerateOptions:
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


async def _after(first: Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    try:
        yield first
        async for event in events:
            yield event
    finally:
        await events.aclose()


def _validated(kind: type[AnyRequest], form: Form) -> AnyRequest:
    try:
        return kind.model_validate(form.fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "muse"}


def _form_of(kind: type[ImageOptions], *optional_files: str) -> dict[str, Any]:
    """Returns what the OpenAPI document says of a form."""
    schema = kind.model_json_schema()
    files = {name: {"type": "string", "format": "binary"} for name in ("image", *optional_files)}
    schema["properties"] = files | schema["properties"]
    schema["required"] = ["image", *schema.get("required", [])]
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }
