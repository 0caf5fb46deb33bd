from datetime import UTC, datetime, timedelta
from random import randint
from zoneinfo import ZoneInfo

from broker import broker_channel, open_message
from lab.workshop.room import Room, Wrong


def eta_in_queue(room: Room) -> datetime | None:
    with broker_channel() as channel:
        message = open_message(channel.client.lindex("basic", 0), "basic", 0)
    return datetime.fromisoformat(message.headers["eta"]) if message.headers["eta"] else None


def task_1(room: Room) -> None:
    for zone in ("America/New_York", "Asia/Tokyo"):
        room.move(zone)
        at = datetime(2031, 3, randint(1, 28), randint(0, 23), 30)
        room.call("send_reminder", 5, at.isoformat())
        right, eta = at.replace(tzinfo=ZoneInfo("Asia/Shanghai")), eta_in_queue(room)
        did = f"called send_reminder for {at:%Y-%m-%dT%H:%M}, in a program in {zone}"
        if eta is None:
            raise Wrong(did, "the message has no time: it runs at once", "the time goes into the option eta")
        if eta != right:
            late = (eta - right) / timedelta(hours=1)
            means = (
                "8 hours are those from Beijing to UTC: the time was taken as UTC"
                if late == 8
                else "the zone of the program counts here, and should not"
            )
            raise Wrong(did, f"it is sent for {eta.isoformat()}, {late:+g} hours off", means)


def task_2(room: Room) -> None:
    room.move("Asia/Tokyo")
    minutes = randint(5, 50)
    before = datetime.now(UTC)
    room.call("send_soon", 6, minutes)
    eta, after = eta_in_queue(room), datetime.now(UTC)
    wait = timedelta(minutes=minutes)
    if eta is None or not before + wait - timedelta(seconds=1) <= eta <= after + wait:
        saw = (
            f"it is sent for {(eta - before) / timedelta(seconds=1):.0f} seconds from now"
            if eta
            else "it has no time"
        )
        raise Wrong(f"called send_soon(6, {minutes})", saw, "countdown takes seconds")
