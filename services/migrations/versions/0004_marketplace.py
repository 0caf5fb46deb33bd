"""The marketplace, and what its schedule needs: leases, the last tick of each entry, changes while it runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
STATUS = sa.String(10)
PRICE = sa.Numeric(12, 2)

# Table -> columns. `id` stands for a key that numbers itself, and `?` for "may be empty".
TABLES = {
    "leases": {"name": sa.String(100), "owner": sa.String(32), "until": MOMENT},
    "schedule_ticks": {"entry": sa.String(100), "due": MOMENT},
    "schedule_changes": {"entry": sa.String(100), "seconds?": sa.Double(), "paused": sa.Boolean()},
    "market_users": {
        "id": sa.Integer(),
        "joined_at": MOMENT,
        "points": sa.Integer(),
        "is_stale": sa.Boolean(),
        "open_tasks": sa.Integer(),
        "completed_tasks": sa.Integer(),
        "spent": PRICE,
    },
    "market_experts": {"id": sa.Integer(), "is_featured": sa.Boolean(), "response_seconds?": sa.Integer()},
    "market_agents": {"id": sa.Integer(), "is_online": sa.Boolean(), "capacity": sa.Integer()},
    "market_activities": {"id": sa.Integer(), "status": STATUS, "starts_at": MOMENT, "ends_at": MOMENT},
    "market_coupons": {"id": sa.Integer(), "status": STATUS, "expires_at": MOMENT},
    "market_invitation_codes": {"id": sa.Integer(), "status": STATUS, "expires_at": MOMENT},
    "market_point_grants": {
        "id": sa.Integer(),
        "user_id": sa.Integer(),
        "points": sa.Integer(),
        "status": STATUS,
        "expires_at": MOMENT,
    },
    "market_tasks": {
        "id": sa.Integer(),
        "user_id": sa.Integer(),
        "expert_id?": sa.Integer(),
        "status": STATUS,
        "price": PRICE,
        "created_at": MOMENT,
        "deadline": MOMENT,
        "answered_after?": sa.Integer(),
        "closed_at?": MOMENT,
    },
    "market_chats": {
        "id": sa.Integer(),
        "user_id": sa.Integer(),
        "agent_id?": sa.Integer(),
        "status": STATUS,
        "created_at": MOMENT,
        "last_message_at": MOMENT,
        "warned_at?": MOMENT,
    },
    "market_chat_messages": {
        "id": sa.Integer(),
        "chat_id": sa.Integer(),
        "text": sa.String(),
        "sent_at": MOMENT,
    },
    "market_hourly_statistics": {
        "hour": MOMENT,
        "new_users": sa.Integer(),
        "new_tasks": sa.Integer(),
        "closed_tasks": sa.Integer(),
        "new_chats": sa.Integer(),
    },
}
REFERENCES = {
    "user_id": "market_users",
    "expert_id": "market_experts",
    "agent_id": "market_agents",
    "chat_id": "market_chats",
}

# Table, rest of the index's name, columns, and which rows it holds: all of them if it is empty.
INDEXES = [
    ("market_users", "joined_at", ["joined_at"], ""),
    ("market_users", "stale", ["id"], "is_stale"),
    ("market_experts", "featured", ["id"], "is_featured"),
    ("market_activities", "planned", ["starts_at", "id"], "status = 'planned'"),
    ("market_activities", "running", ["ends_at", "id"], "status = 'running'"),
    ("market_coupons", "active", ["expires_at", "id"], "status = 'active'"),
    ("market_invitation_codes", "active", ["expires_at", "id"], "status = 'active'"),
    ("market_point_grants", "active", ["expires_at", "id"], "status = 'active'"),
    ("market_tasks", "open", ["deadline", "id"], "status = 'open'"),
    ("market_tasks", "cancelled", ["closed_at", "id"], "status = 'cancelled'"),
    ("market_tasks", "created_at", ["created_at"], ""),
    ("market_tasks", "closed_at", ["closed_at"], ""),
    ("market_tasks", "user_id", ["user_id", "status", "price"], ""),
    ("market_tasks", "expert_id", ["expert_id", "created_at", "answered_after"], ""),
    ("market_chats", "waiting", ["created_at", "id"], "status = 'waiting'"),
    ("market_chats", "active", ["last_message_at", "id"], "status = 'active'"),
    ("market_chats", "agent_id", ["agent_id"], "status = 'active'"),
    ("market_chats", "ended", ["last_message_at", "id"], "status = 'ended'"),
    ("market_chats", "created_at", ["created_at"], ""),
    ("market_chat_messages", "chat_id", ["chat_id"], ""),
]


def upgrade() -> None:
    """Make the tables and their indexes."""
    for table, columns in TABLES.items():
        names = [name.removesuffix("?") for name in columns]
        keys = [name for name in names if name in REFERENCES]
        op.create_table(
            table,
            *(sa.Column(n.removesuffix("?"), kind, nullable=n.endswith("?")) for n, kind in columns.items()),
            sa.PrimaryKeyConstraint(names[0], name=f"pk_{table}"),
            *(
                sa.ForeignKeyConstraint(
                    [key],
                    [f"{REFERENCES[key]}.id"],
                    name=f"fk_{table}_{key}",
                    ondelete="CASCADE" if key == "chat_id" else None,
                )
                for key in keys
            ),
        )
    for table, name, index, where in INDEXES:
        rows = {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)} if where else {}
        op.create_index(f"ix_{table}_{name}", table, index, **rows)


def downgrade() -> None:
    """Drop them, with all that is in the marketplace."""
    for table in reversed(TABLES):
        op.drop_table(table)
