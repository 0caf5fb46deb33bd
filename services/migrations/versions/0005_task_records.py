"""What users asked for: a row for each task, which is also the outbox that its message is sent from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OUTBOX = sa.text("dispatched_at IS NULL AND status = 'pending'")


def upgrade() -> None:
    """Make the table."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "task_records",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("idempotency_key", sa.String(200), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("dispatch_until", moment, nullable=True),
        sa.Column("dispatched_at", moment, nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(32), nullable=True),
        sa.Column("heartbeat_at", moment, nullable=True),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(200), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("finished_at", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_task_records"),
        sa.UniqueConstraint("user_id", "idempotency_key", name="uq_task_records_user_id"),
    )
    op.create_index(
        "ix_task_records_outbox", "task_records", ["created_at"], sqlite_where=OUTBOX, postgresql_where=OUTBOX
    )
    op.create_index("ix_task_records_user_id", "task_records", ["user_id", "created_at", "id"])
    op.create_index("ix_task_records_status", "task_records", ["status", "heartbeat_at"])


def downgrade() -> None:
    """Drop it. What users asked for is forgotten; messages that were sent find no row, and do nothing."""
    op.drop_table("task_records")
