"""Credentials of jobs that wait: encrypted in the database, by keys that are not in it.

Source: `cryptography.fernet`: AES-128-CBC and HMAC-SHA256.
"""

import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class CredentialSeal:
    """Encrypts and decrypts credentials by the keys of a file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Reads the keys.

        Args:
            path: File with a key a line; the first encrypts.
            create: Whether to make the file where there is none.

        Raises:
            ValueError: it cannot be read, or has no such key; the message repeats nothing of it.
        """
        try:
            if create and not path.exists():
                _create(path)
            self._keys = MultiFernet([Fernet(line) for line in path.read_text().split()])
        except OSError as error:
            raise ValueError(f"jobs_key_file: {path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError):
            raise ValueError(
                f"jobs_key_file: expected keys of 32 bytes in URL-safe base64 in {path}, one a "
                "line, got something else"
            ) from None

    def sealed(self, credential: str) -> str | None:
        """Returns a credential encrypted; None if it is empty."""
        return self._keys.encrypt(credential.encode()).decode() if credential else None

    def opened(self, sealed: str | None) -> str:
        """Returns a credential that was encrypted.

        Raises:
            ValueError: by another key.
        """
        if sealed is None:
            return ""
        try:
            return self._keys.decrypt(sealed).decode()
        except InvalidToken:
            raise ValueError(
                "the credential was encrypted by a key that this gateway's jobs_key_file lacks"
            ) from None


def _create(path: Path) -> None:
    """Creates a file with a new key, whole and readable by its owner alone."""
    number, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
        os.link(name, path)
    except FileExistsError:  # another gateway's, made meanwhile
        pass
    finally:
        os.unlink(name)
