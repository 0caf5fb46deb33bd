from random import randint

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.worker()
    order = randint(10, 99)
    room.wait_for(room.start("evening_chain", order), 2)
    did, done = f"sent evening_chain({order})", [effect["what"] for effect in room.effects()]
    if done == ["pack", "tell", "count"] and room.effects("tell")[0]["order"] == order:
        told, counted = room.runs(name="tell"), room.runs(name="count_stock")
        if not told or not counted:
            saw = f"the workers ran {', '.join(run.call for run in room.runs())}"
            raise Wrong(did, saw, "each step is a task of its own in the chain")
        if counted[0].parent_id != told[0].task_id:
            means = "in a group it may run before the customer is told: in a chain it comes after tell"
            raise Wrong(did, "count_stock was sent together with tell", means)
        return
    failed = [run for run in room.runs() if run.outcome == "failed"]
    if failed:
        means = "this step got an argument too many or too few: the result of the step before"
        raise Wrong(did, f"{failed[0].call} failed: {failed[0].detail}", means)
    if sorted(done) == ["count", "pack", "tell"]:
        raise Wrong(
            did,
            f"they ran as {', '.join(done)}",
            "pack, tell, count_stock is right: the steps of a chain run in their order",
        )
    raise Wrong(
        did, f"what was done: {', '.join(done) or 'nothing'}", "pack, tell, count_stock: all three, each once"
    )


def task_2(room: Room) -> None:
    room.task("count_stock")
    outcome = room.run("count_stock")
    extra = room.run("count_stock", 5)
    if outcome.state != "SUCCESS" or extra.state == "SUCCESS":
        saw = "it takes an argument" if extra.state == "SUCCESS" else outcome.error
        raise Wrong(
            "sent count_stock with no argument, and with one",
            saw,
            "the task stays as it was: change its signature",
        )
    if [
        run for run in room.runs(name="count_stock") if "(5,)" not in run.args and run.args not in ("()", "")
    ]:
        raise Wrong(
            "looked at its arguments", "the chain gave it one", ".si() makes a signature that takes no result"
        )
    if not room.effects("tell"):
        raise Wrong(
            "looked at what was done", "the customer was not told", "first the chain must run: see task 1"
        )
