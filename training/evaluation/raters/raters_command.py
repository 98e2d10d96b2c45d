"""`python -m training.evaluation raters`: figure 9 of the paper for two sets of pictures."""

import json
from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.table import Table

from training.evaluation.pictures.set_flags import DEFAULT_PICTURES, Pictures
from training.evaluation.raters.consensus import Consensus, count_consensus, read_answers
from training.evaluation.raters.page import build_page, read_key
from training.evaluation.shares import Share

console = Console()
raters = App(name="raters", help="Has people choose between two sets of pictures (figure 9).")


@raters.command
def page(
    ours: Path,
    theirs: Path,
    *,
    out: Path = Path("out/raters"),
    pictures: Pictures = DEFAULT_PICTURES,
    seed: int = 0,
) -> None:
    """Writes page.html, which raters open, and key.json, which they must not see.

    Parameters
    ----------
    ours
        Generated set, or another folder of pictures with prompts.
    theirs
        Set of another system for the same prompts.
    out
        Folder of both files.
    seed
        Of the order of the pictures in each pair.
    """
    sets = {str(folder): pictures.open(folder) for folder in (ours, theirs)}
    html, key = build_page(sets, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "page.html").write_text(html, encoding="utf-8")
    content = json.dumps(key.as_json(), indent=2, ensure_ascii=False)
    (out / "key.json").write_text(content + "\n", encoding="utf-8")
    console.print(f"{out / 'page.html'}: {len(key.prompts)} pairs for raters")
    console.print(f"{out / 'key.json'}: for `raters count`; keep it from the raters")


@raters.command
def count(
    key: Path,
    *answers: Path,
    raters: int = 5,
    consensus: int = 3,
    out: Path | None = None,
) -> None:
    """Counts the prompts for which raters agree on a set.

    Parameters
    ----------
    key
        key.json of the page.
    answers
        Files that the page saved, one of each rater.
    raters
        Raters that there must be; five in the paper.
    consensus
        Raters who must agree for a result in favour of a set; three in the paper.
    out
        JSON file of the counts; none if not set.
    """
    page_key = read_key(key)
    if len(answers) != raters:
        raise ValueError(f"expected answers of {raters} raters, got {len(answers)} files")
    read = [read_answers(file, page_key) for file in answers]
    counted = count_consensus(page_key, read, needed=consensus)
    console.print(_table(counted, page_key.sets, raters, consensus))
    if out is not None:
        report = {
            "prompts": counted.prompts,
            "preferred": {
                name: {
                    f"at least {n}": counted.at_least(which, n)
                    for n in range(consensus, raters + 1)
                }
                for which, name in enumerate(page_key.sets)
            },
            "no consensus": counted.without,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _table(counted: Consensus, sets: tuple[str, str], raters: int, consensus: int) -> Table:
    levels = range(raters, consensus - 1, -1)
    heads = [f"= {raters}", *(f">= {level}" for level in levels[1:])]
    table = Table("preferred", *heads, title=f"Consensus of {raters} raters on prompts")
    for which, name in enumerate(sets):
        counts = (counted.at_least(which, level) for level in levels)
        table.add_row(name, *(_cell(each, counted.prompts) for each in counts))
    blank = ("",) * (len(heads) - 1)
    table.add_row("no consensus", *blank, _cell(counted.without, counted.prompts))
    return table


def _cell(prompts: int, total: int) -> str:
    return f"{prompts} ({Share(right=prompts, total=total)})"
