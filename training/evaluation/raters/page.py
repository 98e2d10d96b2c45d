"""The page that raters open: pairs of anonymous pictures, all in one file.

The page does not say which set a picture is of; the key does, which raters must not get.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from training.evaluation.pictures.reading import PictureSet

QUALITY = 90  # of the page's WebP pictures


@dataclass(frozen=True, kw_only=True)
class Key:
    """Which set the pictures of a page are of.

    Attributes:
        page: Name of the page, which answers carry.
        sets: Names of the two sets.
        prompts: Of the pairs, in order.
        first: For each pair, which of `sets` its first picture is of: 0 or 1.
    """

    page: str
    sets: tuple[str, str]
    prompts: tuple[str, ...]
    first: tuple[int, ...]

    def as_json(self) -> dict[str, object]:
        """Returns it as JSON."""
        return asdict(self)


def build_page(sets: Mapping[str, PictureSet], *, seed: int) -> tuple[str, Key]:
    """Returns the page of two sets as HTML, and its key.

    Args:
        sets: Two sets by name. Pairs are of the prompts that both have, in the order of the first
            set, with the first picture of each prompt.
        seed: Of the order in each pair.

    Raises:
        ValueError: there are not two sets, or they share no prompt.
    """
    if len(sets) != 2:
        raise ValueError(f"expected two sets of different names, got {', '.join(sets)}")
    names = tuple(sets)
    ours, theirs = (_first_of_each_prompt(pictures) for pictures in sets.values())
    prompts = tuple(prompt for prompt in ours if prompt in theirs)
    if not prompts:
        raise ValueError(f"expected prompts that {names[0]} and {names[1]} share, got none")
    random, pairs, first = np.random.default_rng(seed), [], []
    for prompt in prompts:
        images = [
            _data_url(sets[names[0]], ours[prompt]),
            _data_url(sets[names[1]], theirs[prompt]),
        ]
        first.append(int(random.integers(2)))
        pairs.append(
            {"prompt": prompt, "first": images[first[-1]], "second": images[1 - first[-1]]}
        )
    page = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:12]
    # "</script>" in a prompt must not end the script.
    data = json.dumps({"page": page, "pairs": pairs}).replace("<", "\\u003c")
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    key = Key(page=page, sets=(names[0], names[1]), prompts=prompts, first=tuple(first))
    return template.replace("DATA", data, 1), key


def read_key(file: Path) -> Key:
    """Reads a key that belongs to a page.

    Raises:
        ValueError: the file is no key.
        OSError: the file cannot be read.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        (one, other) = fields["sets"]
        prompts, first = tuple(fields["prompts"]), tuple(fields["first"])
        if len(prompts) != len(first) or not set(first) <= {0, 1}:
            raise ValueError("pairs without a set")
        return Key(page=fields["page"], sets=(one, other), prompts=prompts, first=first)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: expected a key of `raters page`, got {error!r}") from error


def _first_of_each_prompt(pictures: PictureSet) -> dict[str, int]:
    firsts: dict[str, int] = {}
    for index in range(len(pictures)):
        if prompt := pictures.caption(index):
            firsts.setdefault(prompt, index)
    return firsts


def _data_url(pictures: PictureSet, index: int) -> str:
    content = io.BytesIO()
    Image.fromarray(pictures.read(index)).save(content, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
