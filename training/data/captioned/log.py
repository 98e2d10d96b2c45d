"""Counts the examples that a run reads, and names those that it skips in a file."""

import json
import logging
from collections import Counter
from pathlib import Path
from threading import Lock

from training.data.captioned.errors import DataError
from training.resuming import open_log

SKIPPED_FILE = "skipped.jsonl"
JUDGED_FROM = 1000  # examples read before the share of skipped ones can end a run
logger = logging.getLogger(__name__)
# Of every log of this process, which threads share; a log itself is sent to other processes.
_LOCK = Lock()


class SkippedNames:
    """File and key of the examples that a run has skipped, as its file names them.

    Several processes append to the file. Each reading goes on where the last one ended.
    """

    def __init__(self, file: Path) -> None:
        """Reads nothing yet; there may be no file."""
        self._file, self._offset = file, 0
        self._names: set[tuple[str, str]] = set()

    def __contains__(self, name: tuple[str, str]) -> bool:
        """Returns whether an example is named; looks into the file only if it was not before."""
        return name in self._names or name in self.read()

    def read(self) -> set[tuple[str, str]]:
        """Returns the names that are in the file by now; lines that were cut are ignored."""
        if not self._file.is_file():
            return self._names
        with self._file.open("rb") as lines:
            lines.seek(self._offset)
            content = lines.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self._names.add((row["file"], row["key"]))
        return self._names

    def count(self) -> int:
        """Returns how many there are by now."""
        return len(self.read())


class ExampleLog:
    """What became of the examples that were read.

    Attributes:
        read: Examples read in this session, those that come again too.
        skipped: Unusable ones among them.
        filtered: How many each filter left out.
    """

    def __init__(self, file: Path, max_skipped_share: float) -> None:
        """Goes on with the file of an earlier session.

        Args:
            file: A JSON object a line for every skipped example: file, key and reason.
            max_skipped_share: Share of unusable examples, 0 to 1, past which a run ends.

        Raises:
            DataError: the share is outside 0 to 1.
        """
        if not 0 <= max_skipped_share <= 1:
            raise DataError(f"max_skipped_share: expected 0 to 1, got {max_skipped_share}")
        self._file, self._max_share = file, max_skipped_share
        self.read = self.skipped = 0
        self.filtered: Counter[str] = Counter()
        self._named, self._last = SkippedNames(file), ""

    def count_usable(self) -> None:
        """Counts an example that was read.

        Raises:
            DataError: as of `skip`.
        """
        with _LOCK:
            self.read += 1
            self._judge()

    def count_filtered(self, name: str) -> None:
        """Counts an example that a filter left out.

        Raises:
            DataError: as of `skip`.
        """
        with _LOCK:
            self.read += 1
            self.filtered[name] += 1
            self._report(self.filtered.total())
            self._judge()

    def skip(self, file: str, key: str, reason: str) -> None:
        """Counts an unusable example, and names it unless it is named already.

        Raises:
            DataError: more of the examples are unusable than the run allows.
        """
        with _LOCK:
            self.read += 1
            self.skipped += 1
            self._last = f"{key} of {file}: {reason}"
            if (file, key) not in self._named:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open_log(self._file) as lines:
                    lines.write(json.dumps({"file": file, "key": key, "reason": reason}) + "\n")
            self._report(self.skipped)
            self._judge()

    def _judge(self) -> None:
        """Ends a run that skips too many, at whichever example that is known.

        Threads read at a time: the unusable ones among the first may all be counted too early.
        """
        if self.read >= JUDGED_FROM and self.skipped > self._max_share * self.read:
            raise DataError(
                f"{self.skipped} of {self.read} examples could not be used, more than "
                f"--max-skipped-share {self._max_share:g}, the last one {self._last}; "
                f"{self._file} names them"
            )

    def _report(self, count: int) -> None:
        """Logs the counts each time that one of them has doubled."""
        if count & (count - 1) == 0:
            filtered = ", ".join(f"{name} {found}" for name, found in self.filtered.items())
            logger.warning(
                "of %d examples read, %d could not be used (%s names them) and filters left out %s",
                self.read,
                self.skipped,
                self._file,
                filtered or "none",
            )
