"""Routes of Muse's own REST: one for each command of `muse` that paints."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter
from muse_client import AsyncMuseClient
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway.disconnects import unless_gone
from services.gateway.forms import read_form
from services.gateway.native.answers import streamed, whole
from services.gateway.native.models import EVENTS, Images
from services.gateway.native.requests import (
    GenerateRequest,
    ImageRequest,
    InpaintRequest,
    MaskFreeEditRequest,
    OutpaintRequest,
    VaryRequest,
)
from services.gateway.openapi import ERRORS, answer, form_body
from services.gateway.streams import begun, event_stream

ClientOf = Callable[[Request], AsyncMuseClient]
IMAGES = answer(
    Images, "The pictures, or with `stream` an event for each step and picture.", EVENTS
)


def native_routes(client_of: ClientOf) -> APIRouter:
    """Returns the routes.

    Args:
        client_of: Returns the client that presents a request's credential.
    """
    routes = APIRouter(prefix="/v1/muse", tags=["Muse"], responses=ERRORS)

    async def answered(
        request: Request, asked: ImageRequest, files: Mapping[str, bytes]
    ) -> Response:
        options = asked.options()
        options.update(asked.edit(files))
        events = client_of(request).events(asked.prompt, **options)
        if asked.stream:
            return event_stream(streamed(await begun(request, events), asked))
        images = await unless_gone(request, whole(events, asked))
        return JSONResponse(images.model_dump(exclude_none=True))

    @routes.post("/generate", response_model=None, responses=IMAGES)
    async def generate(request: Request, body: GenerateRequest) -> Response:
        """Generates pictures from a prompt."""
        return await answered(request, body, {})

    def add_edit(path: str, kind: type[ImageRequest], what: str, *optional_files: str) -> None:
        async def edit(request: Request) -> Response:
            form = await read_form(request, kind, files=("image", *optional_files))
            form.required("image")
            return await answered(request, form.fields, form.files)

        routes.add_api_route(
            path,
            edit,
            methods=["POST"],
            name=path.strip("/"),
            description=what,
            response_model=None,
            responses=IMAGES,
            openapi_extra=form_body(kind, *optional_files),
        )

    add_edit("/inpaint", InpaintRequest, "Repaints the masked part of a picture.", "mask")
    add_edit("/outpaint", OutpaintRequest, "Extends a picture beyond its borders.")
    add_edit("/mask-free-edit", MaskFreeEditRequest, "Changes a picture towards the prompt.")
    add_edit("/vary", VaryRequest, "Paints a share of a picture anew.")
    return routes
