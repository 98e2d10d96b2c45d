"""`python -m k8s.checks k8s/overlays/gke-v5e ...`: renders overlays and says what is wrong."""

import sys
from pathlib import Path

from k8s.checks.cross_object import mistakes
from k8s.checks.rendering import RenderError, parse, render
from k8s.checks.schemas import schema_mistakes


def main(folders: list[str]) -> int:
    """Returns the exit status: 0 if nothing is wrong with the overlays in these folders."""
    if not folders:
        sys.exit("usage: python -m k8s.checks FOLDER...")
    wrong = 0
    for folder in folders:
        try:
            manifests = parse(render(Path(folder)))
        except RenderError as error:
            sys.exit(f"error: {error}")
        found = schema_mistakes(manifests) + mistakes(manifests)
        wrong += len(found)
        print(f"{folder}: {len(manifests)} objects, {len(found)} mistakes")
        for message in found:
            print(f"  {message}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
