import time

from lab.workshop.room import Room, Wrong


def run_ticks(room: Room) -> tuple[list[str], str]:
    """Send 3 ticks without a worker, wait one period, start a worker, and send one more tick."""
    entry = room.look("ENTRY")
    options = {"queue": "basic"} | entry["options"]
    room.task("count_stock")
    old = [room.send("count_stock", options=options) for _ in range(3)]
    time.sleep(entry["schedule"])  # what is taught is that time passes
    room.worker(["basic"])
    room.wait("the old ones end", lambda: all(tick.ready() for tick in old), 3)
    fresh = room.send("count_stock", options=options)
    room.wait("the fresh one ends", fresh.ready, 3)
    states = [tick.state for tick in old], fresh.state
    room.end_worker()
    return states


def task_1(room: Room) -> None:
    if not isinstance(expires := room.look("ENTRY")["options"].get("expires"), int | float):
        means = "without expires, each tick waits until somebody runs it"
        raise Wrong("read ENTRY", f"expires is {expires!r}", means)
    old, _ = run_ticks(room)
    if old != ["REVOKED"] * 3:
        means = "a tick must expire before the next one is due: the period is 1 second"
        raise Wrong("sent 3 ticks, and started a worker a second later", f"their states are {old}", means)


def task_2(room: Room) -> None:
    if room.look("ENTRY")["options"].get("queue") != "basic":
        raise Wrong(
            "read ENTRY",
            f"the queue is {room.look('ENTRY')['options'].get('queue')!r}",
            "this task belongs into basic",
        )
    _, fresh = run_ticks(room)
    if fresh != "SUCCESS":
        means = "it was too old when the worker got it: let it live nearly as long as the period"
        raise Wrong("sent a tick to a worker that waits for work", f"its state is {fresh}", means)
