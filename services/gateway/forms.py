"""Forms of edits: `multipart/form-data` to a model of its fields, and files.

A field that is an object is JSON, or has brackets as OpenAI's clients write them: `base[steps]`. A
field that is a list is there several times, with or without brackets: `return_iterations[]`.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_origin

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from services.gateway.errors import ApiError, invalid

MAX_FILES, MAX_FIELDS, MAX_FIELD_BYTES = 2, 64, 64 * 2**10
TYPES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
_NESTED = re.compile(r"(\w+)\[(\w*)\]")
AnyFields = TypeVar("AnyFields", bound=BaseModel)


@dataclass(frozen=True)
class Form(Generic[AnyFields]):
    """A form that was read.

    Attributes:
        fields: What is in it besides files.
        files: Contents by name.
    """

    fields: AnyFields
    files: Mapping[str, bytes]

    def required(self, name: str) -> bytes:
        """Returns a file that must be there."""
        if name not in self.files:
            raise invalid(name, "a picture's file", "none", code="missing_required_parameter")
        return self.files[name]


async def read_form(
    request: Request, kind: type[AnyFields], *, files: tuple[str, ...]
) -> Form[AnyFields]:
    """Reads a form, one file a name.

    Args:
        request: Its body has not been read.
        kind: Model of its fields.
        files: Names that files may have.

    Raises:
        ApiError: it is no form, has a file too many, or a file of another type.
        RequestValidationError: a field does not fit the model.
    """
    async with opened_form(request) as form:
        return await read_fields(form, kind, files=files)


@asynccontextmanager
async def opened_form(request: Request) -> AsyncIterator[FormData]:
    """Parses a form, whose files are there for the block.

    Args:
        request: Its body has not been read.

    Raises:
        ApiError: it is no form.
    """
    media_type = request.headers.get("content-type", "none").split(";")[0]
    if media_type != "multipart/form-data":
        raise ApiError(
            415,
            f"expected a body of multipart/form-data, got {media_type}",
            code="unsupported_media_type",
        )
    try:
        async with request.form(
            max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        ) as form:
            yield form
    except HTTPException as error:  # what is wrong with the form
        raise ApiError(400, f"the form cannot be read: {error.detail}") from error


async def read_fields(
    form: FormData, kind: type[AnyFields], *, files: tuple[str, ...]
) -> Form[AnyFields]:
    """Reads what is in a form; see `read_form`."""
    fields: dict[str, Any] = {}
    contents: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            await _add_file(contents, name.removesuffix("[]"), value, files)
        else:
            _add_field(kind, fields, name, value)
    try:  # of texts, so that "3" is a number
        return Form(kind.model_validate(fields, strict=False), contents)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def _add_file(
    contents: dict[str, bytes], name: str, file: UploadFile, names: tuple[str, ...]
) -> None:
    if name not in names:
        raise invalid(name, f"files {' and '.join(names)} only", "a file of this name")
    if name in contents:
        raise invalid(name, "one picture", "several")
    if (file.content_type or TYPES[-1]) not in TYPES:
        raise invalid(name, f"a file of {', '.join(TYPES[:-1])}", file.content_type)
    contents[name] = await file.read()


def _add_field(kind: type[BaseModel], fields: dict[str, Any], name: str, value: Any) -> None:
    name = name.removesuffix("[]")
    nested = _NESTED.fullmatch(name)
    shape = None if name not in kind.model_fields else kind.model_fields[name].annotation
    if nested is not None:
        fields, name = fields.setdefault(nested[1], {}), nested[2]
    elif get_origin(shape) is list:
        fields.setdefault(name, []).append(value)
        return
    elif _is_object(shape):
        value = _object(name, shape, value)
    if not isinstance(fields, dict) or name in fields:
        raise invalid(name, "one value", "several")
    fields[name] = value


def _object(name: str, shape: Any, text: str) -> Any:
    """Returns a field that is an object; its values are of JSON, so that false is no number."""
    try:
        return TypeAdapter(shape).validate_python(json.loads(text), strict=True)
    except ValidationError as error:
        found = [{**each, "loc": (name, *each["loc"])} for each in error.errors()]
        raise RequestValidationError(found) from error
    except ValueError as error:
        raise invalid(name, f"JSON, or fields {name}[...]", f"{text[:100]!r}") from error


def _is_object(shape: Any) -> bool:
    return get_origin(shape) is dict or (isinstance(shape, type) and issubclass(shape, BaseModel))
