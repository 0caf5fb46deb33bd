"""The tables of a small marketplace with customer service.

Each scheduled job looks for a few rows among many. So each has an index that holds only the rows that may be
due one day: `WHERE status = 'active'`. What has expired leaves it. So a job's time follows what is due, and
not the size of the table.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from services.models import Base


def _partial(name: str, *columns: str, where: str) -> Index:
    """Return an index of the rows that fit `where` alone. Both databases have such."""
    condition: dict[str, Any] = {"sqlite_where": text(where), "postgresql_where": text(where)}
    return Index(name, *columns, **condition)


class User(Base):
    """A customer. The statistics are written by a job; who changes what they count sets `is_stale`."""

    __tablename__ = "market_users"
    __table_args__ = (_partial("ix_market_users_stale", "id", where="is_stale"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    joined_at: Mapped[datetime] = mapped_column(index=True)
    points: Mapped[int] = mapped_column(default=0)
    is_stale: Mapped[bool] = mapped_column(default=True)
    open_tasks: Mapped[int] = mapped_column(default=0)
    completed_tasks: Mapped[int] = mapped_column(default=0)
    spent: Mapped[Decimal] = mapped_column(default=Decimal(0))


class Expert(Base):
    """Somebody who does tasks. `response_seconds` is how long the answer takes, on average."""

    __tablename__ = "market_experts"
    __table_args__ = (_partial("ix_market_experts_featured", "id", where="is_featured"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    is_featured: Mapped[bool] = mapped_column(default=False)
    response_seconds: Mapped[int | None]


class MarketTask(Base):
    """Work that a user offers: open, completed or cancelled. `closed_at` is the end of an open one."""

    __tablename__ = "market_tasks"
    __table_args__ = (
        _partial("ix_market_tasks_open", "deadline", "id", where="status = 'open'"),
        _partial("ix_market_tasks_cancelled", "closed_at", "id", where="status = 'cancelled'"),
        Index("ix_market_tasks_user_id", "user_id", "status", "price"),
        Index("ix_market_tasks_expert_id", "expert_id", "created_at", "answered_after"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("market_users.id"))
    expert_id: Mapped[int | None] = mapped_column(ForeignKey("market_experts.id"))
    status: Mapped[str] = mapped_column(String(10), default="open")
    price: Mapped[Decimal] = mapped_column(default=Decimal(0))
    created_at: Mapped[datetime] = mapped_column(index=True)
    deadline: Mapped[datetime]
    answered_after: Mapped[int | None]  # seconds until the expert's first answer
    closed_at: Mapped[datetime | None] = mapped_column(index=True)


class Coupon(Base):
    """A coupon: active, used or expired."""

    __tablename__ = "market_coupons"
    __table_args__ = (_partial("ix_market_coupons_active", "expires_at", "id", where="status = 'active'"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(10), default="active")
    expires_at: Mapped[datetime]


class InvitationCode(Base):
    """An invitation: active, used or expired."""

    __tablename__ = "market_invitation_codes"
    __table_args__ = (
        _partial("ix_market_invitation_codes_active", "expires_at", "id", where="status = 'active'"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(10), default="active")
    expires_at: Mapped[datetime]


class PointGrant(Base):
    """Points that a user got: active, used or expired. Active ones are part of the user's `points`."""

    __tablename__ = "market_point_grants"
    __table_args__ = (
        _partial("ix_market_point_grants_active", "expires_at", "id", where="status = 'active'"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("market_users.id"))
    points: Mapped[int]
    status: Mapped[str] = mapped_column(String(10), default="active")
    expires_at: Mapped[datetime]


class Activity(Base):
    """A promotion: planned, running or ended."""

    __tablename__ = "market_activities"
    __table_args__ = (
        _partial("ix_market_activities_planned", "starts_at", "id", where="status = 'planned'"),
        _partial("ix_market_activities_running", "ends_at", "id", where="status = 'running'"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(10), default="planned")
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]


class Agent(Base):
    """Somebody of the customer service, who talks with up to `capacity` users at once."""

    __tablename__ = "market_agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    is_online: Mapped[bool] = mapped_column(default=True)
    capacity: Mapped[int] = mapped_column(default=3)


class Chat(Base):
    """A talk of a user with the customer service: waiting, active or ended.

    `last_message_at` is the user's. When the user writes again, `warned_at` becomes empty.
    """

    __tablename__ = "market_chats"
    __table_args__ = (
        _partial("ix_market_chats_waiting", "created_at", "id", where="status = 'waiting'"),
        _partial("ix_market_chats_active", "last_message_at", "id", where="status = 'active'"),
        _partial("ix_market_chats_agent_id", "agent_id", where="status = 'active'"),
        _partial("ix_market_chats_ended", "last_message_at", "id", where="status = 'ended'"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("market_users.id"))
    agent_id: Mapped[int | None] = mapped_column(ForeignKey("market_agents.id"))
    status: Mapped[str] = mapped_column(String(10), default="waiting")
    created_at: Mapped[datetime] = mapped_column(index=True)
    last_message_at: Mapped[datetime]
    warned_at: Mapped[datetime | None]


class ChatMessage(Base):
    """One message of a chat. It goes with the chat."""

    __tablename__ = "market_chat_messages"

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("market_chats.id", ondelete="CASCADE"), index=True)
    text: Mapped[str]
    sent_at: Mapped[datetime]


class HourlyStatistics(Base):
    """What happened in one hour (UTC) of the marketplace. A row is written once, after the hour."""

    __tablename__ = "market_hourly_statistics"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    new_users: Mapped[int]
    new_tasks: Mapped[int]
    closed_tasks: Mapped[int]
    new_chats: Mapped[int]
