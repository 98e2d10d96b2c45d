"""The record of a generated set: `set.json` says how it is made, `manifest.jsonl` what there is.

A run that was interrupted continues: pictures that the manifest lists are not made again. A folder
belongs to one request: other prompts, seeds or sampling parameters are refused there.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.evaluation.pictures.prompts import Prompt

MANIFEST, REQUEST = "manifest.jsonl", "set.json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of a set: a line of its manifest.

    Attributes:
        file: Name of the picture in the folder.
        prompt: The words sent.
        prompt_index: Position of the prompt in its file, from 0.
        seed: Of the picture; with several candidates, of the one that was kept.
        tags: What the prompt file says about the prompt.
    """

    file: str
    prompt: str
    prompt_index: int
    seed: int
    tags: Mapping[str, Any] = field(default_factory=dict)


def planned_entries(
    prompts: Sequence[Prompt], *, copies: int, candidates: int, seed: int
) -> list[Entry]:
    """Returns the pictures of a set, in order, no two with the same seed.

    Args:
        prompts: Of the set.
        copies: Pictures of each prompt; at least 1.
        candidates: Pictures that are generated for each, of which the best is kept; they have
            consecutive seeds.
        seed: Of the first picture's first candidate.
    """
    return [
        Entry(
            file=f"{index:06d}-{copy:02d}.png",
            prompt=prompt.text,
            prompt_index=index,
            seed=seed + (index * copies + copy) * candidates,
            tags=prompt.tags,
        )
        for index, prompt in enumerate(prompts)
        for copy in range(copies)
    ]


def claim_folder(folder: Path, entries: Sequence[Entry], options: Mapping[str, Any]) -> None:
    """Makes a folder for a set, or checks that it holds the beginning of this very set.

    Args:
        folder: Of the set.
        entries: All pictures that the set shall have.
        options: What every request says besides, as JSON.

    Raises:
        ValueError: the folder holds a set of other prompts, seeds or options.
    """
    listed = json.dumps([asdict(entry) for entry in entries], sort_keys=True).encode()
    request = {
        "pictures": len(entries),
        "pictures_sha256": hashlib.sha256(listed).hexdigest(),
        "options": dict(options),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _drop_cut_line(folder / MANIFEST)
    record = folder / REQUEST
    if not record.exists():
        part = record.with_suffix(".part")  # so that no record is half a file
        part.write_text(json.dumps(request, indent=2) + "\n")
        part.rename(record)
        return
    there = json.loads(record.read_text())
    changed = [
        f"{key} {there.get(key)} and not {value}"
        for key, value in request.items()
        if there.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"{folder} holds another set, with {'; '.join(changed)}: name another folder in --out"
        )


def add_entry(folder: Path, entry: Entry) -> None:
    """Appends a picture to the manifest; its file must be complete."""
    with (folder / MANIFEST).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> list[Entry]:
    """Returns the pictures that a set has, by file name; none without a manifest.

    A last line without its end, which a killed run left, is ignored, and so is an entry without its
    file.

    Raises:
        ValueError: a line is damaged.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return []
    whole, _, _ = manifest.read_text(encoding="utf-8").rpartition("\n")
    entries = {}
    for number, line in enumerate(whole.split("\n"), 1):
        try:
            entry = Entry(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(
                f"{manifest}, line {number}: expected a picture, got {error}"
            ) from error
        if (folder / entry.file).exists():
            entries[entry.file] = entry
    return [entries[file] for file in sorted(entries)]


def _drop_cut_line(manifest: Path) -> None:
    """Removes a last line without its end, to which the next line would be appended."""
    if manifest.exists():
        content = manifest.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with manifest.open("r+b") as stream:
                stream.truncate(whole)
