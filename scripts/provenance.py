"""Says where the files of a release come from: SLSA provenance in an in-toto statement, as JSON.

`python scripts/provenance.py dist > provenance.json` names every file of the folder by its digest,
the commit that was built, and the lock files that the build obeyed. BUILDER_ID names who builds.

Source: https://slsa.dev/spec/v1.0/provenance and in-toto's attestation framework, Statement v1.
"""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
UNKNOWN_BUILDER = "urn:muse:builder:unnamed"


def digest_of(file: Path) -> dict[str, str]:
    """Returns the digest of a file as in-toto writes it."""
    with file.open("rb") as content:
        return {"sha256": hashlib.file_digest(content, "sha256").hexdigest()}


def commit() -> str:
    """Returns the commit that is checked out."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def statement(folder: Path, *, builder: str, commit: str, now: datetime) -> dict[str, Any]:
    """Returns the statement.

    Args:
        folder: Whose files are released; at least one.
        builder: URI of who builds.
        commit: Of the source.
        now: When the build ended.

    Raises:
        ValueError: the folder has no files.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        raise ValueError(f"expected the files of a release in {folder}, got none")
    locks = sorted((ROOT / "requirements").glob("*.lock"))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": str(file.relative_to(folder)), "digest": digest_of(file)} for file in files
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:muse:scripts/release.sh:1",
                "externalParameters": {"commit": commit},
                "resolvedDependencies": [
                    {"uri": "git+file:.", "digest": {"gitCommit": commit}},
                    *(
                        {"name": str(lock.relative_to(ROOT)), "digest": digest_of(lock)}
                        for lock in locks
                    ),
                ],
            },
            "runDetails": {
                "builder": {"id": builder},
                "metadata": {"finishedOn": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
            },
        },
    }


if __name__ == "__main__":
    builder = os.environ.get("BUILDER_ID", UNKNOWN_BUILDER)
    made = statement(Path(sys.argv[1]), builder=builder, commit=commit(), now=datetime.now(UTC))
    print(json.dumps(made, indent=2))
