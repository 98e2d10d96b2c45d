"""State of jobs in SQLite or PostgreSQL, shared by all gateways of it."""
