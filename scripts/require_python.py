"""Stops the set-up early, with one line, on a Python that is too old."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"Muse needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=...")
