"""Where an orchestrator is unless somebody says otherwise; imports nothing."""

DEFAULT_PORT = 50050
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
