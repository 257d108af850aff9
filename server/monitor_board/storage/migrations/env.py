"""Alembic's entry: runs migrations on the connection that `BoardDatabase.migrate` gives."""

from alembic import context

from server.monitor_board.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
