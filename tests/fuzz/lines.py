"""Counts the lines that the cases of a target reach: `python -m tests.fuzz.lines NAME`.

Cases of earlier runs on this machine count, and so do those that the repository keeps.
"""

import sys

import coverage

from tests.fuzz import registry


def main(name: str) -> None:
    """Prints the share of each module's lines."""
    measured = coverage.Coverage(data_file=None, include=[f"{registry.HERE.parents[1]}/services/*"])
    with measured.collect():
        target = registry.load(name)
        cases = [content for _, content in target.seeds()]
        for folder in (registry.found(name), registry.kept(name)):
            cases += [file.read_bytes() for file in sorted(folder.glob("*"))]
        failed = 0
        with target.opened() as check:
            for content in cases:
                try:
                    check(content)
                except Exception:  # a fault that was found and is not fixed yet
                    failed += 1
    names = [name.replace(".", "/") for name in target.MODULES if name.startswith("services")]
    print(f"{len(cases)} cases of {name}, {failed} of which fail; lines that they reach:")
    places = [f"{registry.HERE.parents[1]}/{each}" for each in names]
    measured.report(include=[f"{place}{end}" for place in places for end in ("/*", ".py")])


if __name__ == "__main__":
    main(*sys.argv[1:])
