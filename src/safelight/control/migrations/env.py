"""How Alembic runs here: on the connection that `Database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from safelight.control.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
