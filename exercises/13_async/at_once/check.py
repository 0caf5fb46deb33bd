from random import sample

from lab.workshop.room import Room, Wrong


def run(room: Room) -> tuple[list[int], list[int]]:
    if "machines" not in room.kept:
        machines = [*sample(range(50, 99), 5), 7]
        room.kept |= {"machines": machines, "answers": room.value("ask_all", machines)}
    return room.kept["machines"], room.kept["answers"]


def task_1(room: Room) -> None:
    machines, answers = run(room)
    if answers != [machine * machine for machine in machines]:
        means = "the answers belong to the machines in their order"
        if sorted(answers) == sorted(machine * machine for machine in machines):
            means = "the answers are right, but not in the order of the machines"
        raise Wrong(f"sent ask_all({machines})", f"it returned {answers}", means)


def task_2(room: Room) -> None:
    run(room)
    kinds = [effect["what"] for effect in room.effects()]
    at_once = kinds.index("answered") if "answered" in kinds else 0
    if at_once < 6:
        means = "each await in the loop waits for its answer before the next question"
        raise Wrong(
            "sent ask_all of 6 machines", f"{at_once} were asked before the first had answered", means
        )
