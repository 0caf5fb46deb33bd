from random import sample

from lab.evidence import waiting
from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    articles = sample(range(1000), 70)
    room.worker()
    result = room.start("look_up_all", articles)
    did = f"sent look_up_all with {len(articles)} articles"
    if not room.wait("all end", result.ready):
        raise Wrong(did, "not all have ended", "is a part of the canvas missing?")
    values = result.get(timeout=1, propagate=False)
    if not isinstance(values, list):
        raise Wrong(
            did, f"it has one result, {values!r}", "the result is a list of all prices: a chain has one"
        )
    flat = [value for part in values for value in (part if isinstance(part, list) else [part])]
    if flat != [7 * article for article in articles]:
        saw = f"{len(flat)} results: {str(flat[:4])[:-1]}, …"
        means = (
            "each article must be looked up once, in order"
            if "Error" not in saw
            else "each call is a tuple of arguments: (article,)"
        )
        raise Wrong(did, saw, means)


def task_2(room: Room) -> None:
    room.end_worker()
    for count, right in ((20, 1), (70, 4)):
        room.broker.client().delete("basic")
        room.start("look_up_all", list(range(count)))
        if (sent := waiting("basic")) != right:
            means = (
                "one message for each article: chunks puts several into one"
                if sent == count
                else "each message should have 20 articles, the last one what is left"
            )
            raise Wrong(
                f"sent look_up_all with {count} articles, and no worker",
                f"messages that wait: {sent}, not {right}",
                means,
            )
