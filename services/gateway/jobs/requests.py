"""Requests of jobs: the operation's name, a webhook, and the fields of the operation itself."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request

from services.gateway.errors import ApiError, invalid
from services.gateway.forms import opened_form, read_fields
from services.gateway.native.requests import (
    GenerateRequest,
    ImageRequest,
    InpaintRequest,
    MaskFreeEditRequest,
    OutpaintRequest,
    VaryRequest,
)

JSON, FORM = "application/json", "multipart/form-data"


class JobFields(BaseModel):
    """What requests of jobs have beside the fields of their operation."""

    operation: str
    webhook: str | None = Field(
        None, description="Where the end of the job is posted to: a public https:// URL."
    )


class GenerateJob(JobFields, GenerateRequest):
    """New pictures from a prompt."""

    operation: Literal["generate"] = Field(description="Name of the operation.")


class InpaintJob(JobFields, InpaintRequest):
    """An inpainting of the file `image`, with the file `mask` or its own transparent pixels."""

    operation: Literal["inpaint"] = Field(description="Name of the operation.")


class OutpaintJob(JobFields, OutpaintRequest):
    """An outpainting of the file `image`."""

    operation: Literal["outpaint"] = Field(description="Name of the operation.")


class MaskFreeEditJob(JobFields, MaskFreeEditRequest):
    """A mask-free edit of the file `image`."""

    operation: Literal["mask-free-edit"] = Field(description="Name of the operation.")


class VaryJob(JobFields, VaryRequest):
    """A variation of the file `image`."""

    operation: Literal["vary"] = Field(description="Name of the operation.")


AnyJob = GenerateJob | InpaintJob | OutpaintJob | MaskFreeEditJob | VaryJob


@dataclass(frozen=True)
class Operation:
    """An operation that jobs run.

    Attributes:
        fields: Model of its request, as `/v1/muse/` has it.
        job: Model of the request of a job.
        files: Names of its files; the first must be there.
    """

    fields: type[ImageRequest]
    job: type[AnyJob]
    files: tuple[str, ...]


OPERATIONS: Mapping[str, Operation] = {
    "generate": Operation(GenerateRequest, GenerateJob, ()),
    "inpaint": Operation(InpaintRequest, InpaintJob, ("image", "mask")),
    "outpaint": Operation(OutpaintRequest, OutpaintJob, ("image",)),
    "mask-free-edit": Operation(MaskFreeEditRequest, MaskFreeEditJob, ("image",)),
    "vary": Operation(VaryRequest, VaryJob, ("image",)),
}


@dataclass(frozen=True)
class JobRequest:
    """A request of a job that was read.

    Attributes:
        body: Its fields.
        files: Contents of its files, by name.
        digest: Names what is asked for: equal if and only if fields, webhook and files are.
    """

    body: AnyJob
    files: Mapping[str, bytes]
    digest: str

    def check(self) -> None:
        """Checks what can be before the job runs.

        Raises:
            ApiError: it asks for a stream.
            MuseError: a value does not fit its field.
        """
        if self.body.stream:
            raise invalid("stream", "false in a job, whose progress GET answers", "true")
        self.body.options()
        if self.files:
            self.body.edit(self.files)


async def read_job(request: Request) -> JobRequest:
    """Reads the request of a job: JSON where the operation has no files, a form where it has.

    Raises:
        ApiError: it is neither, names no operation, or lacks a file.
        RequestValidationError: a field does not fit its operation.
    """
    media_type = request.headers.get("content-type", "none").split(";")[0]
    if media_type == JSON:
        body, files = _of_json(await request.body()), dict[str, bytes]()
    elif media_type == FORM:
        body, files = await _of_form(request)
    else:
        raise ApiError(
            415,
            f"expected a body of {JSON} for generate, or of {FORM}, got {media_type}",
            code="unsupported_media_type",
        )
    digest = await asyncio.to_thread(_digest, body, files)  # of files that may be large
    return JobRequest(body, files, digest)


def _of_json(content: bytes) -> AnyJob:
    try:
        return GenerateJob.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "literal_error":  # of the operation
            expected = "generate, or another operation in a form with its file"
            raise invalid("operation", expected, f"{first['input']!r:.100}") from error
        raise RequestValidationError(error.errors()) from error


async def _of_form(request: Request) -> tuple[AnyJob, dict[str, bytes]]:
    async with opened_form(request) as form:
        name = form.get("operation")
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if operation is None:
            raise invalid("operation", f"one of {', '.join(OPERATIONS)}", f"{name!r:.100}")
        read = await read_fields(form, operation.job, files=operation.files)
    for first in operation.files[:1]:
        read.required(first)
    return read.fields, dict(read.files)


def _digest(body: AnyJob, files: Mapping[str, bytes]) -> str:
    digests = {name: hashlib.sha256(each).hexdigest() for name, each in files.items()}
    fields = body.model_dump(mode="json", exclude_defaults=True)  # those of later versions, too
    whole = json.dumps([fields, digests], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()
