"""Reports of scored pictures: a table, a JSON file and a sheet of the pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.pictures.sheets import contact_sheet
from training.evaluation.reliability import Reliability
from training.evaluation.scenes import QUESTIONS, ScoredImage, shares_by_group
from training.evaluation.shares import Share

COLUMNS = 20  # of a sheet
console = Console()


def write_report(
    title: str, scored: Sequence[ScoredImage], reliability: Reliability, file: Path
) -> None:
    """Prints the shares of scored pictures and writes them with the pictures.

    Args:
        title: Of the table.
        scored: At least one picture.
        reliability: Of the detector that read them.
        file: The JSON to write; the sheet gets its name with `.png`.
    """
    shares = shares_by_group(scored)
    console.print(_table(title, shares))
    report = {
        "detector": reliability.as_json(),
        "shares": {
            group: {name: share and share.as_json() for name, share in row.items()}
            for group, row in shares.items()
        },
        "pictures": [
            {
                "group": one.case.group,
                "prompt": one.case.prompt,
                "seed": one.case.seed,
                **vars(one.score),
            }
            for one in scored
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")
    sheet = file.with_suffix(".png")
    contact_sheet([one.picture for one in scored], columns=min(COLUMNS, len(scored))).save(sheet)
    console.print(f"{file} and {sheet}, which shows the pictures in the order of the groups")


def _table(title: str, shares: Mapping[str, Mapping[str, Share | None]]) -> Table:
    table = Table("group", "pictures", *QUESTIONS, title=title)
    for group, row in shares.items():
        whole = row["all"]
        cells = ("-" if share is None else str(share) for share in row.values())
        table.add_row(group, "0" if whole is None else str(whole.total), *cells)
    return table
