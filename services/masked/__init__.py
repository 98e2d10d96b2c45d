"""The server of a masked stage, base or superres: engine, servicer, process and settings."""
