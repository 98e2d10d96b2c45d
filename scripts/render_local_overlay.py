"""Renders k8s/overlays/local-cpu into the package that runs it: `make local-overlay`."""

import json
from pathlib import Path

from k8s.checks.rendering import parse, render

ROOT = Path(__file__).parents[1]
RENDERED = ROOT / "tools/local/local-cpu.json"


def main() -> None:
    """Writes the file; a test says when it is not what the overlay renders to."""
    objects = parse(render(ROOT / "k8s/overlays/local-cpu"))
    RENDERED.write_text(json.dumps(objects, indent=1) + "\n")


if __name__ == "__main__":
    main()
