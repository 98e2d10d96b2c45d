"""Forms of edits and variations: `multipart/form-data` to fields and files.

OpenAI's clients write nested fields with brackets, `base[steps]`, and lists as `image[]`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from services.gateway.errors import ApiError, invalid

MAX_FILES, MAX_FIELDS, MAX_FIELD_BYTES = 2, 64, 64 * 2**10
TYPES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
_NESTED = re.compile(r"(\w+)\[(\w*)\]")


@dataclass(frozen=True)
class Form:
    """A form that was read.

    Attributes:
        fields: Texts by name, in dictionaries where their names are nested.
        files: Contents by name.
    """

    fields: Mapping[str, Any]
    files: Mapping[str, bytes]

    def required(self, name: str) -> bytes:
        """Returns a file that must be there."""
        if name not in self.files:
            raise invalid(name, "a picture's file", "none", code="missing_required_parameter")
        return self.files[name]


async def read_form(request: Request, *, files: tuple[str, ...]) -> Form:
    """Reads a form, one file a name.

    Args:
        request: Its body has not been read.
        files: Names that files may have.

    Raises:
        ApiError: it is no form, has a file too many, or a file of another type.
    """
    kind = request.headers.get("content-type", "none").split(";")[0]
    if kind != "multipart/form-data":
        raise ApiError(
            415,
            f"expected a body of multipart/form-data, got {kind}",
            code="unsupported_media_type",
        )
    fields: dict[str, Any] = {}
    contents: dict[str, bytes] = {}
    try:
        async with request.form(
            max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        ) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    await _add_file(contents, name.removesuffix("[]"), value, files)
                else:
                    _add_field(fields, name, value)
    except HTTPException as error:  # what is wrong with the form
        raise ApiError(400, f"the form cannot be read: {error.detail}") from error
    return Form(fields, contents)


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


def _add_field(fields: dict[str, Any], name: str, value: str) -> None:
    nested = _NESTED.fullmatch(name)
    if nested is not None:
        fields, name = fields.setdefault(nested[1], {}), nested[2]
    if not isinstance(fields, dict) or name in fields:
        raise invalid(name, "one value", "several")
    fields[name] = value
