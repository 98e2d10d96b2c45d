"""Errors of data from files: those that end a run, and those that leave one example out."""


class DataError(ValueError):
    """Data cannot be read, or hold too few usable examples."""


class UnusableExample(Exception):
    """One example cannot be read; the message says why, and the run skips it."""


class FilteredExample(Exception):
    """One example can be read, and a filter leaves it out; the message names the filter."""
