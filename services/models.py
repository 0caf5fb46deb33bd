"""The tables of the database. A change here needs a migration in services/migrations."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    String,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no time zone: what comes back from there gets it again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: nobody can say which moment it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; pass an aware datetime, as datetime.now(UTC) is")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment as an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables share: types, and names of constraints. A migration can change only what has a name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, Decimal: Numeric(12, 2)}  # noqa: RUF012 - SQLAlchemy's own form


class Order(Base):
    """One order of the shop. `order_id` is the shop's own key: importing an order again replaces it.

    The import's number and the line say where the order comes from. What is stored never gives way to an
    older import, or to an earlier line of the same one. So it does not matter which is stored first.
    """

    __tablename__ = "orders"

    order_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    customer: Mapped[str] = mapped_column(String(200))
    email: Mapped[str] = mapped_column(String(254))
    country: Mapped[str] = mapped_column(String(2))
    product: Mapped[str] = mapped_column(String(200))
    quantity: Mapped[int]
    unit_price: Mapped[Decimal]
    ordered_at: Mapped[datetime] = mapped_column(index=True)
    import_number: Mapped[int] = mapped_column(default=0, server_default="0")  # 0: it was not imported
    line: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class Import(Base):
    """One import of one file, and what came of it. It is kept: a call that is repeated finds its result.

    `id` names the call that began it, such as a task's id. `number` grows: a later import has a higher one.
    """

    __tablename__ = "imports"
    __table_args__ = (UniqueConstraint("id"), {"sqlite_autoincrement": True})  # no number is given twice

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str]
    path: Mapped[str]
    fingerprint: Mapped[str]
    imported: Mapped[int] = mapped_column(BigInteger, default=0)  # these three are counted at its end
    replaced: Mapped[int] = mapped_column(BigInteger, default=0)
    rejected: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class ImportPart(Base):
    """How far an import has come in one byte range of its file. It is finished after `rows` rows.

    The row changes in the same transaction as the orders that it counts. So after a crash it says exactly
    which rows are in, and whoever works on this range goes on from `next_byte`.
    """

    __tablename__ = "import_parts"
    __table_args__ = (UniqueConstraint("import_number", "first_byte"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    import_number: Mapped[int] = mapped_column(ForeignKey("imports.number", ondelete="CASCADE"))
    first_byte: Mapped[int] = mapped_column(BigInteger)
    end_byte: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    next_byte: Mapped[int] = mapped_column(BigInteger)
    next_line: Mapped[int] = mapped_column(BigInteger)
    accepted: Mapped[int] = mapped_column(BigInteger, default=0)
    rejected: Mapped[int] = mapped_column(BigInteger, default=0)
    resumed_after_line: Mapped[int | None] = mapped_column(BigInteger)


class Reject(Base):
    """One reason why one row of a file was not imported. `line` is the first line of the row.

    It waits here until the import has ended and its rejects file is written.
    """

    __tablename__ = "rejects"
    __table_args__ = (Index("ix_rejects_import_number", "import_number", "line"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    import_number: Mapped[int] = mapped_column(ForeignKey("imports.number", ondelete="CASCADE"))
    line: Mapped[int] = mapped_column(BigInteger)
    column: Mapped[str]
    value: Mapped[str]
    reason: Mapped[str]


class MailEntry(Base):
    """One mail in the ledger: first claimed by a process that is sending it, then sent.

    `owner` is the name of a claim, and not of a process: a process that claims a mail again has another one.
    """

    __tablename__ = "sent_mails"

    message_id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    claimed_at: Mapped[datetime] = mapped_column(index=True)
    sent_at: Mapped[datetime | None]


_OUTBOX = text("dispatched_at IS NULL AND status = 'pending'")


class TaskRecord(Base):
    """One task that a user asked for: what to run, how far it is, and what came of it.

    `id` is also the id of the Celery task. The row is written before the message is sent, so a submission
    is never lost; a row that no dispatcher has sent yet (`dispatched_at` is empty) is the outbox.
    """

    __tablename__ = "task_records"
    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        Index("ix_task_records_outbox", "created_at", sqlite_where=_OUTBOX, postgresql_where=_OUTBOX),
        Index("ix_task_records_user_id", "user_id", "created_at", "id"),
        Index("ix_task_records_status", "status", "heartbeat_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    task: Mapped[str] = mapped_column(String(200))
    arguments: Mapped[dict[str, Any]] = mapped_column(JSON)
    user_id: Mapped[str] = mapped_column(String(100))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime]

    # The dispatcher's: whose turn it is to send the message, and when it was sent.
    dispatch_until: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]

    # The worker's: one of STATUSES in task_records.py, progress in percent, the claim of who runs it.
    status: Mapped[str] = mapped_column(String(20), default="pending")
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str | None] = mapped_column(String(32))
    heartbeat_at: Mapped[datetime | None]
    runs: Mapped[int] = mapped_column(default=0)
    percent: Mapped[int] = mapped_column(default=0)
    step: Mapped[str] = mapped_column(String(200), default="")
    result: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None]
    finished_at: Mapped[datetime | None]


class PracticeRecord(Base):
    """One recording of somebody's speech, and what its analysis found. A completed row never changes."""

    __tablename__ = "practice_records"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    path: Mapped[str]  # in the data folder
    created_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(String(20))  # pending, completed or failed
    result: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None]
