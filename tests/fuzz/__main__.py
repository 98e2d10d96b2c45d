"""Fuzzes targets one after the other: `python -m tests.fuzz --seconds 3600 [TARGET...]`.

Each target runs in a process of its own. Afterwards the lines that all of its cases reach are
counted. The status is 1 if a fault was found; its case then lies in tests/fuzz/corpus.
"""

import argparse
import os
import subprocess
import sys

from tests.fuzz import registry


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *registry.NAMES], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default 600)")
    parser.add_argument("--cases", type=int, default=-1, help="at most so many for each target")
    parser.add_argument("--seed", type=int, default=0, help="of the changes; 0 draws one")
    arguments = parser.parse_args()
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # the same lines for the same case
    faulty = []
    for name in arguments.targets or registry.NAMES:
        print(f"=== {name}", flush=True)
        flags = (
            f"-max_total_time={arguments.seconds}",
            f"-runs={arguments.cases}",
            f"-seed={arguments.seed}",
        )
        campaign = [sys.executable, "-m", "tests.fuzz.campaign", name, *flags]
        if subprocess.run(campaign, env=environment, check=False).returncode:
            faulty.append(name)
        subprocess.run([sys.executable, "-m", "tests.fuzz.lines", name], check=True)
    if faulty:
        print(f"faults of {', '.join(faulty)}: their cases are in tests/fuzz/corpus", flush=True)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
