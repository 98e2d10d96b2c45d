"""Links and paths in documents lead somewhere, and the README stays short."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
DOCUMENTS = sorted(ROOT / name for name in LISTED if (ROOT / name).is_file())
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH = re.compile(
    r"`((?:services|training|client|tools|tests|protos|scripts|k8s|docs|benchmarks|examples)/[\w/.\-]*)`"
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LONGEST_README = 150


def anchors(document: Path) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub and GitLab make them."""
    text = FENCE.sub("", document.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(document: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(FENCE.sub("", document.read_text())):
        target = document.parent / path if path else document
        missing = not target.exists()
        if missing or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    named = PATH.findall(document.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_index_names_every_page_of_docs() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {file.name for file in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert len(pages) > 8
    assert {page for page in pages if f"({page})" not in index} == set()


def test_the_readme_fits_its_length_and_its_python_compiles() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= LONGEST_README
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    compile(program, "README.md", "exec")


def test_the_diffs_of_extending_apply_and_touch_as_few_product_files_as_it_says() -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    diffs = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    touched = []
    for diff in diffs:
        command = ["git", "apply", "--check", "-"]
        ended = subprocess.run(command, cwd=ROOT, input=diff, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        files = set(re.findall(r"^diff --git a/(\S+)", diff, re.MULTILINE))
        touched.append(len({file for file in files if not file.startswith("tests/")}))
    assert touched == [4, 6, 3]  # a sampling parameter, an edit kind, a preset
