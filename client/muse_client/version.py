"""The version of the project: both wheels, `muse --version` and GetStatus read it from here."""

__version__ = "0.1.0"
