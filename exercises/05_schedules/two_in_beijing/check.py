from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from celery.schedules import ParseException, crontab

from celery_app import app
from lab.workshop.room import Room, Wrong

BEIJING = ZoneInfo("Asia/Shanghai")


def due(name: str, fields: dict[str, Any], day: datetime) -> list[datetime]:
    """Return when it is due in the 24 hours from `day` on, by Celery's own reckoning."""
    try:
        schedule: Any = crontab(**fields, app=app)
    except (TypeError, ValueError, ParseException) as error:
        raise Wrong(f"made crontab(**{name})", str(error), "crontab does not take this") from None
    found: list[datetime] = []
    moment = day.astimezone(UTC) - timedelta(seconds=1)
    end = moment + timedelta(days=1)
    while True:
        schedule.nowfun = lambda now=moment: now
        moment = moment + schedule.remaining_estimate(moment)
        if moment > end:
            return found
        found.append(moment.astimezone(BEIJING))


def task_1(room: Room) -> None:
    monday = datetime(2026, 11, 30, tzinfo=BEIJING)
    moments = [moment.strftime("%H:%M") for moment in due("REPORT", room.look("REPORT"), monday)]
    if moments != ["02:30"]:
        saw = f"in Beijing it is due at {', '.join(moments[:6]) or 'no time'}"
        means = (
            "the hours are read in the app's time zone, UTC: 02:30 in Beijing is 18:30 there, the day before"
        )
        raise Wrong("asked Celery when REPORT is due on a Monday", saw, means)


def task_2(room: Room) -> None:
    fields = room.look("STOCK")
    monday = datetime(2026, 11, 30, tzinfo=BEIJING)
    for day in range(7):
        at = monday + timedelta(days=day)
        moments = [moment.strftime("%H:%M") for moment in due("STOCK", fields, at)]
        hours = [f"{hour:02}:{minute:02}" for hour in range(9, 17) for minute in (0, 15, 30, 45)]
        right = hours if day < 5 else []
        if moments != right:
            saw = f"in Beijing it is due at {', '.join(moments[:4]) or 'no time'} … ({len(moments)} times)"
            means = f"it should be {len(right)} times: the hours are 1 to 8 in UTC, and the days mon to fri"
            raise Wrong(f"asked Celery when STOCK is due on a {at:%A}", saw, means)
