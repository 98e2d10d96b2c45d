"""Figure 9: the page hides which set a picture is of, and answers are counted by the key."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.evaluation.pictures.reading import open_pictures
from training.evaluation.pictures.set_flags import PictureFlags
from training.evaluation.raters.consensus import count_consensus, read_answers
from training.evaluation.raters.page import Key, build_page, read_key
from training.evaluation.raters.raters_command import count, page

PROMPTS = ["a ball", "two cups", "a </script> tag", "a key"]


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Two sets of pictures, of one grey each, for the same prompts but one."""
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    for folder, shade, prompts in zip(
        folders, (10, 240), (PROMPTS, PROMPTS[::-1][1:]), strict=True
    ):
        folder.mkdir()
        for index, prompt in enumerate(prompts):
            Image.new("RGB", (16, 16), (shade,) * 3).save(folder / f"{index}.png")
            (folder / f"{index}.txt").write_text(prompt)
    return folders


def key_of(first: tuple[int, ...]) -> Key:
    """Returns a key of some pairs."""
    prompts = tuple(PROMPTS[: len(first)])
    return Key(page="p", sets=("ours", "theirs"), prompts=prompts, first=first)


def saved(folder: Path, rater: str, *choices: str, page_name: str = "p") -> Path:
    """Writes answers as the page saves them."""
    file = folder / f"{rater}.json"
    answers = {str(index): choice for index, choice in enumerate(choices)}
    file.write_text(json.dumps({"page": page_name, "rater": rater, "answers": answers}))
    return file


def test_the_page_has_all_pictures_and_nothing_that_names_a_set(sets: list[Path]) -> None:
    opened = {folder.name: open_pictures(folder, side_px=16) for folder in sets}
    html, key = build_page(opened, seed=1)
    (embedded,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    data: dict[str, Any] = json.loads(embedded)
    assert [pair["prompt"] for pair in data["pairs"]] == PROMPTS[:3] == list(key.prompts)
    assert all(
        pair[side].startswith("data:image/webp;base64,")
        for pair in data["pairs"]
        for side in ("first", "second")
    )
    assert "ours" not in html
    assert "theirs" not in html
    assert "http" not in html
    assert data["page"] == key.page
    assert build_page(opened, seed=1)[1] == key


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script by Node")
def test_the_page_takes_names_of_two_words_and_no_key_that_is_meant_for_the_browser(
    sets: list[Path], tmp_path: Path
) -> None:
    opened = {folder.name: open_pictures(folder, side_px=16) for folder in sets}
    html, key = build_page(opened, seed=0)
    (data,) = re.findall(r'id="data">(.*?)</script>', html)
    (script,) = re.findall(r"<script>\n(.*?)</script>", html, re.DOTALL)
    (tmp_path / "data.json").write_text(data)
    (tmp_path / "page.js").write_text(script)

    printed = subprocess.run(
        ["node", Path(__file__).with_name("browser.js"), "data.json", "page.js"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert printed.returncode == 0, printed.stderr
    answers = {str(pair): "indifferent" for pair in range(len(key.prompts))}
    assert json.loads(printed.stdout) == [{"page": key.page, "rater": "Ann L", "answers": answers}]


def test_the_key_says_which_set_each_picture_is_of(sets: list[Path]) -> None:
    opened = {folder.name: open_pictures(folder, side_px=16) for folder in sets}
    for seed in range(4):
        html, key = build_page(opened, seed=seed)
        (embedded,) = re.findall(r'id="data">(.*?)</script>', html)
        pairs = json.loads(embedded)["pairs"]
        dark = [pair["first"] for pair, first in zip(pairs, key.first, strict=True) if first == 0]
        dark += [pair["second"] for pair, first in zip(pairs, key.first, strict=True) if first == 1]
        assert len(set(dark)) == 1  # our pictures are all of one grey


def test_three_of_five_raters_decide_for_a_set(tmp_path: Path) -> None:
    key = key_of((0, 1, 0, 1))
    votes = [
        ["first"] * 5,  # ours, all
        ["first"] * 4 + ["second"],  # theirs comes first here
        ["first", "first", "second", "second", "indifferent"],
        ["second"] * 3 + ["indifferent"] * 2,  # ours
    ]
    files = [saved(tmp_path, str(rater), *(pair[rater] for pair in votes)) for rater in range(5)]
    counted = count_consensus(key, [read_answers(file, key) for file in files], needed=3)
    assert [counted.at_least(0, level) for level in (5, 4, 3)] == [1, 1, 2]
    assert [counted.at_least(1, level) for level in (5, 4, 3)] == [0, 1, 1]
    assert (counted.prompts, counted.without) == (4, 1)


def test_the_commands_go_from_two_sets_to_the_table(
    sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    page(*sets, out=out, pictures=PictureFlags(side_px=16))
    key = read_key(out / "key.json")
    ours = ["first" if first == 0 else "second" for first in key.first]
    files = [saved(tmp_path, str(rater), *ours, page_name=key.page) for rater in range(5)]
    count(out / "key.json", *files, out=tmp_path / "counts.json")
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["preferred"][str(sets[0])] == {"at least 3": 3, "at least 4": 3, "at least 5": 3}
    assert counts["no consensus"] == 0
    assert "no consensus" in capsys.readouterr().out


def test_answers_that_do_not_count_are_refused(tmp_path: Path) -> None:
    key = key_of((0, 0))
    good = saved(tmp_path, "one", "first", "second")
    for file, message in (
        (saved(tmp_path, "other", "first", "first", page_name="q"), "answers of page p, got .* q"),
        (saved(tmp_path, "short", "first"), "for pair 1, got None"),
        (saved(tmp_path, "odd", "first", "left"), "for pair 1, got 'left'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_answers(file, key)
    (tmp_path / "no.json").write_text("[]")
    with pytest.raises(ValueError, match="expected answers that a page saved"):
        read_answers(tmp_path / "no.json", key)
    answers = read_answers(good, key)
    with pytest.raises(ValueError, match="several of one"):
        count_consensus(key, [answers, answers], needed=2)
    with pytest.raises(ValueError, match="more than half of 1 raters"):
        count_consensus(key, [answers], needed=2)
    with pytest.raises(ValueError, match="expected a key of `raters page`"):
        read_key(good)


def test_sets_without_a_shared_prompt_have_no_page(sets: list[Path]) -> None:
    ours = open_pictures(sets[0], side_px=16)
    alone = open_pictures(sets[1], side_px=16, limit=1)
    key = build_page({"ours": ours, "alone": alone}, seed=0)[1]
    assert len(key.prompts) == 1
    (sets[1] / "0.txt").write_text("something else")
    with pytest.raises(ValueError, match="prompts that ours and alone share"):
        build_page({"ours": ours, "alone": alone}, seed=0)
    with pytest.raises(ValueError, match="two sets of different names"):
        build_page({"ours": ours}, seed=0)
