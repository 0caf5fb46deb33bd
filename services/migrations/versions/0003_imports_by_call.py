"""Imports by the call that began them, with their parts; and from which line an order came.

Orders stay. How far old imports had come is forgotten, and so are their rejects: the rejects files stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the new columns, and make the tables of imports anew."""
    op.add_column("orders", sa.Column("import_number", sa.Integer(), server_default="0", nullable=False))
    op.add_column("orders", sa.Column("line", sa.BigInteger(), server_default="0", nullable=False))
    op.drop_table("rejects")
    op.drop_table("imports")
    op.create_table(
        "imports",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("imported", sa.BigInteger(), nullable=False),
        sa.Column("replaced", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_imports"),
        sa.UniqueConstraint("id", name="uq_imports_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "import_parts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("import_number", sa.Integer(), nullable=False),
        sa.Column("first_byte", sa.BigInteger(), nullable=False),
        sa.Column("end_byte", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("next_byte", sa.BigInteger(), nullable=False),
        sa.Column("next_line", sa.BigInteger(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("resumed_after_line", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_import_parts"),
        sa.UniqueConstraint("import_number", "first_byte", name="uq_import_parts_import_number"),
        sa.ForeignKeyConstraint(
            ["import_number"],
            ["imports.number"],
            name="fk_import_parts_import_number",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "rejects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("import_number", sa.Integer(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("column", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejects"),
        sa.ForeignKeyConstraint(
            ["import_number"], ["imports.number"], name="fk_rejects_import_number", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_rejects_import_number", "rejects", ["import_number", "line"])


def downgrade() -> None:
    """Bring the old tables back, empty but for the orders."""
    op.drop_table("rejects")
    op.drop_table("import_parts")
    op.drop_table("imports")
    with op.batch_alter_table("orders") as orders:
        orders.drop_column("line")
        orders.drop_column("import_number")
    op.create_table(
        "imports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("first_byte", sa.BigInteger(), nullable=False),
        sa.Column("end_byte", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("next_byte", sa.BigInteger(), nullable=False),
        sa.Column("next_line", sa.BigInteger(), nullable=False),
        sa.Column("imported", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_imports"),
        sa.UniqueConstraint("path", "first_byte", "end_byte", name="uq_imports_path"),
    )
    op.create_table(
        "rejects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("column", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejects"),
        sa.ForeignKeyConstraint(
            ["import_id"], ["imports.id"], name="fk_rejects_import_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_rejects_import_id", "rejects", ["import_id", "line"])
