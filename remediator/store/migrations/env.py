"""Alembic's entry: runs the migrations on the connection that `Database.migrate` opened."""

from __future__ import annotations

from alembic import context

from remediator.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
