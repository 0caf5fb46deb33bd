"""The ledger of sent mails: a table that all hosts share, so that a mail is sent once.

What to learn here: "look whether it was sent, then send" lets two processes both look, and both send. A claim
is one statement, and of two processes one wins. It has a lease, because a process may die with it. No
transaction is open while the mail is being sent.
"""

import uuid
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, select, update

from services.database import now, upsert, writing
from services.models import MailEntry

KEPT = timedelta(days=30)  # longer than any message waits for its redelivery


class MailBeingSent(Exception):
    """Another process has claimed the mail, and its lease has not ended."""


def claim(message_id: str, lease: timedelta) -> str | None:
    """Claim a mail for this process, and return the name of the claim, or None if the mail has been sent.

    A claim whose `lease` has ended belongs to a process that died: it is taken over.

    Raises `MailBeingSent`.
    """
    owner = uuid.uuid4().hex
    with writing() as session:
        moment = now(session)
        session.execute(delete(MailEntry).where(MailEntry.claimed_at < moment - KEPT))
        new = upsert(session, MailEntry).values(message_id=message_id, owner=owner, claimed_at=moment)
        claimed = new.on_conflict_do_update(
            index_elements=["message_id"],
            set_={"owner": owner, "claimed_at": moment},
            where=and_(MailEntry.sent_at.is_(None), MailEntry.claimed_at < moment - lease),
        )
        if session.scalars(claimed.returning(MailEntry.owner)).first():
            return owner
        sent_at = session.scalar(select(MailEntry.sent_at).where(MailEntry.message_id == message_id))
    if sent_at is None:
        raise MailBeingSent(message_id)
    return None


def renew(message_id: str, owner: str) -> bool:
    """Begin the lease of a claim anew. Return False if another process has taken the claim over."""
    with writing() as session:
        mine = update(MailEntry).where(_is_claim(message_id, owner))
        renewed = session.scalars(mine.values(claimed_at=now(session)).returning(MailEntry.owner))
        return renewed.first() is not None


def record_sent(message_id: str, owner: str) -> None:
    """Write down that a mail has been sent, whoever has claimed it since."""
    with writing() as session:
        moment = now(session)
        sent = upsert(session, MailEntry).values(
            message_id=message_id, owner=owner, claimed_at=moment, sent_at=moment
        )
        session.execute(sent.on_conflict_do_update(index_elements=["message_id"], set_={"sent_at": moment}))


def give_back(message_id: str, owner: str) -> None:
    """Give up a claim whose mail was not sent. What another process has written since then stays."""
    with writing() as session:
        session.execute(delete(MailEntry).where(_is_claim(message_id, owner)))


def _is_claim(message_id: str, owner: str) -> ColumnElement[bool]:
    return and_(MailEntry.message_id == message_id, MailEntry.owner == owner, MailEntry.sent_at.is_(None))
