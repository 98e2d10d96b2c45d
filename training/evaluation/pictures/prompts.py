"""Prompt files: text, JSON lines or tab-separated values, by their suffix.

.txt    one prompt a line, as T2I-CompBench's
.jsonl  one object a line with `prompt`, as GenEval's; its other members are tags
.tsv    a header with a column "Prompt", as PartiPrompts'; the other columns are tags
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A prompt and what its file says about it.

    Attributes:
        text: The prompt.
        tags: Other columns of its line by name, such as {"Category": "Animals"}.
    """

    text: str
    tags: Mapping[str, Any] = field(default_factory=dict)


def read_prompts(file: Path) -> list[Prompt]:
    """Reads a prompt file in its order.

    Args:
        file: UTF-8; lines without a prompt in a .txt are skipped.

    Raises:
        ValueError: the file is missing, has another suffix, is not UTF-8 or holds no prompt, or a
            line has none.
        OSError: the file cannot be read.
    """
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(
            f"prompts: expected a file that ends in {', '.join(_READERS)}, got {file.name!r}"
        )
    if not file.is_file():
        raise ValueError(f"prompts: expected a file, got {file}, which is none")
    try:
        prompts = list(reader(file.read_text(encoding="utf-8-sig")))
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts: expected UTF-8 in {file}, got {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not prompts:
        raise ValueError(f"prompts: expected at least one prompt in {file}, got none")
    return prompts


def _lines(text: str) -> Iterator[Prompt]:
    for line in text.splitlines():
        if line.strip():
            yield Prompt(line.strip())


def _objects(text: str) -> Iterator[Prompt]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            members = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: expected a JSON object, got {error}") from error
        if not isinstance(members, dict):
            raise ValueError(f"line {number}: expected a JSON object, got {line.strip()[:40]!r}")
        yield _prompt(members, "prompt", number)


def _columns(text: str) -> Iterator[Prompt]:
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    heads = [head for head in rows.fieldnames or () if head.strip().lower() == "prompt"]
    if not heads:
        raise ValueError(f'line 1: expected a column "Prompt", got {rows.fieldnames}')
    for row in rows:
        columns = {name: value for name, value in row.items() if name is not None and value}
        yield _prompt(columns, heads[0], rows.line_num)


def _prompt(members: Mapping[str, Any], key: str, number: int) -> Prompt:
    text = members.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"line {number}: expected text in {key!r}, got {text!r}")
    return Prompt(text.strip(), {name: each for name, each in members.items() if name != key})


_READERS: Mapping[str, Callable[[str], Iterator[Prompt]]] = {
    ".txt": _lines,
    ".jsonl": _objects,
    ".tsv": _columns,
}
