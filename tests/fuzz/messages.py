"""Valid protobuf messages whose fields have values that no honest client sends."""

import math
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.choices import Choices

MANY = 10_000  # copies of a repeated field's value
DEEPEST = 4
INTEGERS = (0, 1, 2, 3, 15, 16, 17, 255, 256, 257, 4096, 65535, 65536, 2**31 - 1, 2**31)
FLOATS = (0.0, -0.0, 1.0, 0.5, 1e-45, 3.4e38, -1.0, 100.0, math.nan, math.inf, -math.inf)
TEXTS = (
    "",
    " \t\n",
    "a fox",
    "\0",
    "\x1b[31mred",
    "\r\nHTTP/1.1 200 OK",
    '{"level":"ERROR"}',
    "%s%n{0}${HOME}",
    "\u202efox\u2066",
    "e\u0301" * 40,
    "\U0001f9ff" * 90,
    "\ufeff\ufffe\ue000",
    "fox " * 1200,
    "x" * 70_000,
)
# Field 99 as a number, as bytes and as a group that ends; field 2 of another type than any has.
UNKNOWN = (b"\x98\x06\x01", b"\x9a\x06\x03abc", b"\x9b\x06\x9c\x06", b"\x15\0\0\0\0")


def edited(message: Message, choices: Choices) -> bytes:
    """Returns a message's bytes after one to four changes; the given message is not kept."""
    for _ in range(1 + choices.below(4)):
        _change(message, choices, DEEPEST)
    content = message.SerializeToString()
    return content + choices.pick(UNKNOWN) if choices.below(8) == 7 else content


def _change(message: Any, choices: Choices, deeper: int) -> None:
    """Changes one field, of the message or of one inside it."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = choices.pick(fields)
    if choices.below(6) == 5:
        message.ClearField(field.name)
    elif field.is_repeated:
        _repeat(getattr(message, field.name), field, choices, deeper)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        inner = getattr(message, field.name)
        inner.SetInParent()
        if deeper and choices.below(8) != 7:
            _change(inner, choices, deeper - 1)
        elif choices.below(2):
            inner.Clear()
            inner.SetInParent()
    else:
        setattr(message, field.name, _value(field, choices, getattr(message, field.name)))


def _repeat(values: Any, field: FieldDescriptor, choices: Choices, deeper: int) -> None:
    count = choices.pick((1, 1, 1, 2, 17, MANY))
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        added = values[0] if values and choices.below(2) else values.add()
        if deeper:
            _change(added, choices, deeper - 1)
        for _ in range(count - 1):
            values.add().CopyFrom(added)
    elif values and choices.below(2):
        place = choices.below(len(values))
        values[place] = _value(field, choices, values[place])
    else:
        values.extend([_value(field, choices, field.default_value or _ZERO[field.type])] * count)


def _integer(low: int, high: int) -> Callable[[Choices, int], int]:
    def integer(choices: Choices, now: int) -> int:
        options = [*INTEGERS, now + 1, now - 1, -1, high, high - 1, low, low + 1, high // 2]
        return min(max(choices.pick(options), low), high)

    return integer


def _float(choices: Choices, now: float) -> float:
    return choices.pick((*FLOATS, now * 2, -now, now + 1e-6))


def _text(choices: Choices, now: str) -> str:
    return choices.pick((*TEXTS, now + "\0", now[:-1], now * 2, now.upper()))


def _bytes(choices: Choices, now: bytes) -> bytes:
    place, length = choices.below(len(now) + 1), 1 + choices.below(8)
    return choices.pick(
        (
            now[:place] + choices.take(length) + now[place + length :],
            now[:place] + choices.take(length) + now[place:],
            now[:place] + now[place + length :],
            now[:place],
            now + bytes(length),
            now * 2,
            b"",
            b"\xff" * len(now),
            bytes(2**20),
        )
    )


_INT32, _INT64 = _integer(-(2**31), 2**31 - 1), _integer(-(2**63), 2**63 - 1)
_UINT32, _UINT64 = _integer(0, 2**32 - 1), _integer(0, 2**64 - 1)
_BY_TYPE: dict[int, Callable[[Choices, Any], Any]] = {
    FieldDescriptor.TYPE_BOOL: lambda choices, now: not now,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_DOUBLE: _float,
    FieldDescriptor.TYPE_ENUM: _INT32,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
}
_ZERO: dict[int, Any] = {
    **dict.fromkeys(_BY_TYPE, 0),
    FieldDescriptor.TYPE_BYTES: b"",
    FieldDescriptor.TYPE_STRING: "",
}


def _value(field: FieldDescriptor, choices: Choices, now: Any) -> Any:
    """Returns a value of a field's type."""
    return _BY_TYPE[field.type](choices, now)
