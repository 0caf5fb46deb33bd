from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.away("charge", 2)
    order = randint(10, 99)
    outcome = room.run("pay", order, 100)
    if outcome.value != f"R-{order}":
        raise Wrong(
            "sent pay, with the service away for 2 calls",
            str(outcome),
            "this error may pass: Unavailable belongs into autoretry_for",
        )
    most = (room.option("pay", "retry_kwargs") or {}).get("max_retries", room.option("pay", "max_retries"))
    if most != 3:
        raise Wrong("read the options of pay", f"max_retries is {most}", "3 retries are asked for")


def task_2(room: Room) -> None:
    room.away("charge", 0)
    outcome = room.run("pay", 5, 0, seconds=20)  # each retry may take a second and more
    did = "sent pay with 0 pence, which the service refuses"
    if len(outcome.runs) > 1:
        raise Wrong(
            did,
            f"{len(outcome.runs)} runs, then {outcome.error}",
            "it was refused each time: only errors that may pass are worth a retry",
        )
    if "Refused" not in outcome.error:
        raise Wrong(did, str(outcome), "let the error pass: whoever waits must see it")


def task_3(room: Room) -> None:
    options = {
        name: room.option("pay", name) for name in ("retry_backoff", "retry_backoff_max", "retry_jitter")
    }
    if not options["retry_backoff"]:
        raise Wrong(
            "read the options of pay",
            f"retry_backoff is {options['retry_backoff']!r}",
            "without backoff each wait is the same",
        )
    if options["retry_backoff_max"] != 60:
        raise Wrong(
            "read the options of pay",
            f"retry_backoff_max is {options['retry_backoff_max']}",
            "60 seconds is the most. Without this option, Celery waits up to 600",
        )
    if options["retry_jitter"] is False:
        raise Wrong(
            "read the options of pay",
            "retry_jitter is False",
            "without jitter, all that failed together come back together",
        )
