"""What the whole language needs: approvals, schedules, diagnoses, and more kinds of control."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and columns."""
    op.create_table(
        "approvals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("pc", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("decided_at", sa.Double(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "pc"),
    )
    op.create_index("ix_approvals_expires_at", "approvals", ["expires_at"])
    op.create_table(
        "diagnoses",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("pc", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seen", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "pc"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slot_at", sa.Double(), nullable=False),
        sa.Column("served_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    for table, column in (
        ("runs", sa.Column("proposed", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("runs", sa.Column("pool", sa.Text(), nullable=False, server_default="")),
        ("steps", sa.Column("idempotent", sa.Boolean(), nullable=False, server_default=sa.true())),
        ("changes", sa.Column("priority", sa.Integer(), nullable=False, server_default="0")),
        (
            "changes",
            sa.Column("reverts_itself", sa.Boolean(), nullable=False, server_default=sa.true()),
        ),
        (
            "controls",
            sa.Column("kind", sa.String(length=16), nullable=False, server_default="pause"),
        ),
        ("controls", sa.Column("value", sa.JSON(), nullable=True)),
        ("notifications", sa.Column("dedup", sa.Text(), nullable=False, server_default="")),
    ):
        op.add_column(table, column)
    op.create_index("ix_runs_parent_id", "runs", ["parent_id"])
    # A kill switch, a pin and a mode hold until they are lifted.
    with op.batch_alter_table("controls") as controls:
        controls.alter_column("until", existing_type=sa.Double(), nullable=True)
