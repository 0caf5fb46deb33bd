"""The customer service's jobs: give waiting users an agent, warn silent ones, end silent chats."""

from datetime import datetime, timedelta

from sqlalchemy import Integer, Subquery, and_, func, insert, literal, null, select, update
from sqlalchemy.orm import Session

from services.jobs import Counts
from services.marketplace import BATCH, batch, change, more
from services.marketplace_models import Agent, Chat, ChatMessage

SILENT = timedelta(minutes=10)  # a chat without a message of its user for so long ends
WARNED = timedelta(minutes=8)
WARNING = "Are you still there? This chat ends in two minutes."
MOST_CHATS = 10  # of one agent at once, whatever the agent's capacity says


def process_customer_service_queue(session: Session, now: datetime) -> Counts:
    """Give the users who wait longest to the agents who talk least, as long as an agent has time.

    All in one statement: the waiting chats in their order stand beside the free places in theirs.
    """
    places, waiting = _free_places(), _waiting_chats()
    pairs = select(waiting.c.id, places.c.agent_id).join(places, waiting.c.number == places.c.number)
    pair = pairs.limit(BATCH).subquery()
    assign = update(Chat).where(Chat.id == pair.c.id, Chat.status == "waiting")
    # The time without a message begins anew: the user could not know that somebody reads.
    found = assign.values(agent_id=pair.c.agent_id, status="active", last_message_at=now, warned_at=null())
    assigned = len(change(session, found, Chat.id))
    waits = session.scalar(select(func.count()).where(Chat.status == "waiting"))
    return {"assigned": assigned, "waiting": waits or 0}


def _free_places() -> Subquery:
    """Return the free places of online agents: first a first one of each, then a second one."""
    place = select(literal(1, Integer).label("number")).cte("place", recursive=True)
    place = place.union_all(select(place.c.number + 1).where(place.c.number < MOST_CHATS))
    busy = (
        select(Chat.agent_id, func.count().label("chats"))
        .where(Chat.status == "active")
        .group_by(Chat.agent_id)
        .subquery()
    )
    chats = func.coalesce(busy.c.chats, 0)
    number = func.row_number().over(order_by=(place.c.number, Agent.id))
    return (
        select(Agent.id.label("agent_id"), number.label("number"))
        .join_from(Agent, place, and_(place.c.number <= Agent.capacity))
        .outerjoin(busy, busy.c.agent_id == Agent.id)
        .where(Agent.is_online, place.c.number > chats)
        .subquery("places")
    )


def _waiting_chats() -> Subquery:
    """Return the waiting chats with their numbers in the queue."""
    first = select(Chat.id, Chat.created_at).where(Chat.status == "waiting")
    first = first.order_by(Chat.created_at, Chat.id).limit(BATCH)
    oldest = first.subquery()
    number = func.row_number().over(order_by=(oldest.c.created_at, oldest.c.id))
    return select(oldest.c.id, number.label("number")).subquery("waiting")


def send_timeout_warnings(session: Session, now: datetime) -> Counts:
    """Write into each chat that is silent for 8 minutes that it will end. Once, until its user writes."""
    silent = and_(
        Chat.status == "active",
        Chat.last_message_at <= now - WARNED,
        Chat.last_message_at > now - SILENT,
        Chat.warned_at.is_(None),
    )
    warn = update(Chat).where(Chat.id.in_(batch(Chat.id, silent, Chat.last_message_at)))
    warned = change(session, warn.values(warned_at=now), Chat.id)
    if warned:
        messages = [{"chat_id": chat, "text": WARNING, "sent_at": now} for (chat,) in warned]
        session.execute(insert(ChatMessage), messages)
    return {"warned": len(warned), "more": more(session, silent)}


def auto_end_timeout_chats(session: Session, now: datetime) -> Counts:
    """End chats that are silent for 10 minutes. Their agents have time for others."""
    silent = and_(Chat.status == "active", Chat.last_message_at <= now - SILENT)
    end = update(Chat).where(Chat.id.in_(batch(Chat.id, silent, Chat.last_message_at)))
    return {"ended": len(change(session, end.values(status="ended"), Chat.id)), "more": more(session, silent)}
