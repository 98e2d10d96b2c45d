"""What Alembic runs to migrate: see `services.gateway.jobs.database.connections.migrate`."""

from alembic import context

from services.gateway.jobs.database.tables import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata
)
context.run_migrations()
