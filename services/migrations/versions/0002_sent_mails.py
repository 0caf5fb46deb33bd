"""The ledger of sent mails: it was a file on one host, and hosts that share a database share it now."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sent_mails",
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("message_id", name="pk_sent_mails"),
    )
    op.create_index("ix_sent_mails_claimed_at", "sent_mails", ["claimed_at"])


def downgrade() -> None:
    """Drop it. Mails that were sent may then be sent again when their tasks are redelivered."""
    op.drop_table("sent_mails")
