"""What the OpenAPI document says beyond what FastAPI derives: errors, forms and streams."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from services.gateway.streams import MEDIA_TYPE

SHARED = "#/components/schemas/{model}"  # where FastAPI puts the models of bodies and answers


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="One sentence for a person.")
    type: str = Field(description="Kind of the error, as in OpenAI's API.")
    param: str | None = Field(description="Name of the field that is wrong, if one is.")
    code: str | None = Field(description="Which error of its kind it is.")


class ErrorBody(BaseModel):
    """The answer to a request that is refused, or that failed."""

    error: ErrorDetail


FILES = {
    "image": "A still PNG, JPEG or WebP file: sides of 16 to 16,384 pixels, at most 2^24 in all.",
    "mask": "A picture file of the same size, which marks what is repainted.",
}
ANY_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["event", "data"],
}
# With a "4XX" FastAPI documents no 422, which the gateway does not answer.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused."},
    "5XX": {"model": ErrorBody, "description": "The request cannot be served now, or failed."},
}


def answer(
    model: type[BaseModel],
    description: str,
    events: Mapping[str, type[BaseModel]] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """Returns the documentation of an answer that is whole, or a stream of events.

    Args:
        model: The whole answer.
        description: Of both.
        events: Model of each event's data, by its name; None for what another API documents.
    """
    items = ANY_EVENT if events is None else {"oneOf": [_event(*each) for each in events.items()]}
    content = {MEDIA_TYPE: {"itemSchema": items}}
    return {200: {"model": model, "description": description, "content": content}}


def form_body(kind: type[BaseModel], *optional_files: str) -> dict[str, Any]:
    """Returns the documentation of a form, which has the file `image` and perhaps others."""
    content = {"multipart/form-data": {"schema": form_schema(kind, ("image", *optional_files))}}
    return {"requestBody": {"required": True, "content": content}}


def form_schema(kind: type[BaseModel], file_names: Sequence[str]) -> dict[str, Any]:
    """Returns the schema of a form with files, of which the first must be there."""
    schema = schema_of(kind)
    fields = {name: _without_null(each) for name, each in schema["properties"].items()}
    files = {
        name: {"type": "string", "format": "binary", "description": FILES[name]}
        for name in file_names
    }
    schema["properties"] = files | fields
    schema["required"] = [*file_names[:1], *schema.get("required", [])]
    return schema


def _event(name: str, model: type[BaseModel]) -> dict[str, Any]:
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": schema_of(model),
    }
    return {
        "type": "object",
        "properties": {"event": {"const": name}, "data": data},
        "required": ["event", "data"],
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a form's field, whose texts are no null."""
    if "anyOf" not in schema:
        return schema
    given = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return {**{name: each for name, each in schema.items() if name != "anyOf"}, **given[0]}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the schema of a model whose own models are shared ones."""
    schema = model.model_json_schema(ref_template=SHARED)
    schema.pop("$defs", None)
    return schema
