"""Asks a database for known weaknesses of the packages that a lock file names.

`python scripts/audit_lock.py requirements/serve.lock`: exits with status 1 if there is one. Says
NOT RUN where no database answers, which pip-audit alone reports as success.
"""

import json
import subprocess
import sys
from pathlib import Path


def audit(lock: Path) -> str:
    """Returns what pip-audit found, in a sentence.

    Raises:
        SystemExit: a package has a known weakness, or pip-audit failed.
    """
    command = ["--disable-pip", "--require-hashes", "--format", "json", "-r", str(lock)]
    done = subprocess.run(
        [Path(sys.executable).with_name("pip-audit"), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        if "ConnectionError" in done.stderr:
            return f"audit of {lock}: NOT RUN, no database of weaknesses answers"
        raise SystemExit(f"audit of {lock}: pip-audit failed:\n{done.stderr}") from None
    weak = [package for package in packages if package.get("vulns")]
    if weak:
        raise SystemExit(f"audit of {lock}: known weaknesses:\n{json.dumps(weak, indent=2)}")
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return f"audit of {lock}: NOT RUN, the database of weaknesses knows none of its packages"
    return f"audit of {lock}: no known weakness of {len(asked)} of {len(packages)} packages"


if __name__ == "__main__":
    print(audit(Path(sys.argv[1])))
