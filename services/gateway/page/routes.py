"""Routes of the page: its document, its files, and what its form is made of."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from muse_client import MuseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway.native.requests import MAX_IMAGES
from services.gateway.served import ServedSystem
from services.sampling import SAMPLING_PARAMETERS

STATIC = Path(__file__).parent / "static"
DOCUMENT = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing is loaded from elsewhere and nothing inline runs; pictures come as blobs of an answer.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # ask each time whether it changed
}
# A slider ends where a larger value changes nothing that can be seen.
SLIDERS = {
    "steps": (1, 64, 1),
    "guidance_scale": (0, 12, 0.25),
    "guidance_scale_start": (0, 12, 0.25),
    "temperature": (0, 2, 0.05),
    "choice_temperature": (0, 20, 0.5),
    "top_k": (0, 256, 1),
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page, as it is sent.

    Attributes:
        content: Its bytes.
        compressed: Its bytes by gzip.
        type: Its media type.
        tag: Of its content.
    """

    content: bytes
    compressed: bytes
    type: str
    tag: str

    def answer(self, request: Request) -> Response:
        """Returns the file, or that the browser has it."""
        headers = HEADERS | {"ETag": self.tag, "Vary": "Accept-Encoding"}
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers |= {"Content-Encoding": "gzip"}
            return Response(self.compressed, headers=headers, media_type=self.type)
        return Response(self.content, headers=headers, media_type=self.type)


def read_files(folder: Path = STATIC) -> dict[str, PageFile]:
    """Returns the files of the page by name."""
    files = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        compressed = gzip.compress(content, 9, mtime=0)
        files[path.name] = PageFile(content, compressed, TYPES[path.suffix], tag)
    return files


def page_routes(system: ServedSystem) -> APIRouter:
    """Returns the routes.

    Args:
        system: What is served.
    """
    files = read_files()
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def document(request: Request) -> Response:
        """Sends the document."""
        return files[DOCUMENT].answer(request)

    @routes.get("/page/form.json")
    async def form() -> Response:
        """Sends what the form is made of; without the stages, why they are away."""
        return JSONResponse(await form_of(system), headers=HEADERS)

    @routes.get("/page/{name}")
    async def file(request: Request, name: str) -> Response:
        """Sends a file of the page."""
        if name not in files:
            raise HTTPException(404)
        return files[name].answer(request)

    return routes


async def form_of(system: ServedSystem) -> dict[str, Any]:
    """Returns the sampling parameters with their sliders, and what is served."""
    form: dict[str, Any] = {
        "max_count": MAX_IMAGES,
        "parameters": [
            {
                "name": name,
                "help": SAMPLING_PARAMETERS[name].help,
                "range": SAMPLING_PARAMETERS[name].range,
                "slider": slider,
            }
            for name, slider in SLIDERS.items()
        ],
    }
    try:
        served = await system.current()
    except MuseError as error:
        return form | {"away": error.message}
    return form | {
        "preset": served.preset,
        "side_px": served.side_px,
        "defaults": served.defaults,
    }
