"""Prompt files of three forms, and what is said of bad ones."""

from pathlib import Path

import pytest

from training.evaluation.pictures.prompts import Prompt, read_prompts


def written(folder: Path, name: str, content: str) -> Path:
    """Writes a prompt file."""
    file = folder / name
    file.write_text(content, encoding="utf-8")
    return file


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    file = written(tmp_path, "p.txt", "a red ball\n\n two café cups \n")
    assert read_prompts(file) == [Prompt("a red ball"), Prompt("two café cups")]


def test_members_of_json_lines_are_tags(tmp_path: Path) -> None:
    file = written(tmp_path, "p.jsonl", '{"tag": "one", "include": [1], "prompt": "a ball"}\n\n')
    assert read_prompts(file) == [Prompt("a ball", {"tag": "one", "include": [1]})]


def test_columns_are_tags_and_quotes_are_part_of_a_prompt(tmp_path: Path) -> None:
    content = 'Prompt\tCategory\tNote\n"Hi" on a sign\tText\t\na ball\tThings\tround\n'
    assert read_prompts(written(tmp_path, "p.tsv", content)) == [
        Prompt('"Hi" on a sign', {"Category": "Text"}),
        Prompt("a ball", {"Category": "Things", "Note": "round"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "a", r"ends in \.txt, \.jsonl, \.tsv, got 'p\.csv'"),
        ("p.txt", " \n", "at least one prompt"),
        ("p.jsonl", "{", "line 1: expected a JSON object"),
        ("p.jsonl", '\n"a ball"', "line 2: expected a JSON object, got '\"a ball\"'"),
        ("p.jsonl", '{"prompt": 3}', "line 1: expected text in 'prompt', got 3"),
        ("p.tsv", "Text\tNote\na\tb\n", 'column "Prompt"'),
        ("p.tsv", "Prompt\tNote\n\tb\n", "line 2: expected text in 'Prompt', got None"),
    ],
)
def test_a_bad_file_is_refused_with_the_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_prompts(written(tmp_path, name, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a file, got .*gone\.txt, which is none"):
        read_prompts(tmp_path / "gone.txt")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"expected UTF-8 in .*p\.txt"):
        read_prompts(file)
