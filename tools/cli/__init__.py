"""The commands of `muse`."""
