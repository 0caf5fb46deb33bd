from random import randint

from lab.workshop.room import Room, Wrong


def run_chain(room: Room) -> tuple[str, object, int]:
    room.worker()
    article, percent = "x" * randint(3, 9), randint(11, 29)
    result = room.start("order_chain", article, percent)
    outcome = room.outcome(f"sent order_chain({article!r}, {percent})", result)
    did = f"sent order_chain({article!r}, {percent})"
    if outcome.state != "SUCCESS":
        means = "a step got other arguments than it takes. The first comes from the step before"
        raise Wrong(did, str(outcome), means)
    return did, outcome.value, 100 * len(article) * (100 + percent) // 100


def task_1(room: Room) -> None:
    did, value, _ = run_chain(room)
    if not isinstance(value, str) or not value.endswith("pence"):
        raise Wrong(did, f"the result of the chain is {value!r}", "the last step is not the label")
    names = [run.name.partition(".")[2] for run in room.runs()]
    if names[-3:] != ["price_of", "add_tax", "label"]:
        raise Wrong(
            did,
            f"the workers ran {', '.join(names)}",
            "each step is a task of its own: price_of, add_tax, label",
        )


def task_2(room: Room) -> None:
    did, value, right = run_chain(room)
    if str(right) not in str(value).split():
        raise Wrong(
            did,
            f"the result is {value!r}, and {right} is right",
            "add_tax did not get the rate, or not as its second argument",
        )
