"""Log lines for people: the time, the process, the message and its fields, instead of JSON."""

import json
from datetime import datetime
from typing import Any

TECHNICAL = ("logger", "trace_id", "span_id")  # fields that the JSON has besides


def readable(line: str) -> str:
    """Returns a line of log for a terminal; one that is no JSON of a server stays as it is.

    Fields that are objects, such as the times of each stage, are in the JSON only.

    Characters that a terminal would obey, or that change the order of others, are escaped: callers
    write some of the values.
    """
    try:
        record = json.loads(line)
        at = datetime.fromisoformat(record.pop("time")).astimezone()
        service, level = record.pop("service"), record.pop("level")
        message = str(record.pop("message"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "".join(map(_visible, line.removesuffix("\n"))) + "\n"
    exception = str(record.pop("exception", "")).splitlines()
    shown = [f"{at:%H:%M:%S}", str(service).removeprefix("muse."), message]
    if level != "INFO":
        shown.insert(2, f"{level}:")
    shown += [
        f"{name}={_text(value)}"
        for name, value in record.items()
        if name not in TECHNICAL and value != "" and not isinstance(value, dict)
    ]
    lines = ["  ".join(shown), *(f"    {each}" for each in exception)]
    return "".join(f"{''.join(map(_visible, each))}\n" for each in lines)


def _text(value: Any) -> str:
    """Returns a field: numbers short, texts as they are, and all else as JSON."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _visible(character: str) -> str:
    if character.isprintable() or character == "\t":
        return character
    return character.encode("unicode_escape").decode()
