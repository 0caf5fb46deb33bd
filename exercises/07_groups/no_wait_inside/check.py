from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    articles = ["x" * randint(3, 9) for _ in range(4)]
    room.worker(["basic"], "two", concurrency=2)
    look(room, articles)
    room.end_worker("two")


def task_2(room: Room) -> None:
    room.worker(["basic"], "one", concurrency=1)
    look(room, ["x" * randint(3, 9) for _ in range(3)])


def look(room: Room, articles: list[str]) -> None:
    did, right = f"sent order_total({articles})", 100 * sum(map(len, articles))
    before = len(room.runs(name="price_of"))
    result = room.start("order_total", articles)
    if not room.wait("it ends", result.ready, 2.5):
        means = "the task that waits occupies the only child, and its parts wait for it"
        raise Wrong(did, f"after 2.5 s its state is {result.state}", means)
    outcome = room.outcome(did, result)
    if "Never call result.get() within a task" in outcome.error:
        raise Wrong(
            did,
            "RuntimeError: Never call result.get() within a task!",
            "total waits for other tasks. A chord does not: its body runs when they have ended",
        )
    if outcome.value != right:
        raise Wrong(did, f"{outcome}; right is {right}", "the body of a chord gets the list of all results")
    if len(room.runs(name="price_of")) - before < len(articles):
        raise Wrong(
            did,
            "price_of was not run for each article",
            "each article is a task of its own: that is why it is fast",
        )
