import ast

from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    outcome = room.run("greet", "Ada")
    if "coroutine" in outcome.error:
        raise Wrong(
            "sent greet('Ada')",
            outcome.error,
            "the body never ran: Celery got a coroutine, and nobody awaited it",
        )
    if "'await' expression" in outcome.error:
        means = "AsyncTask awaits what the body gives back: the body stays async def"
        raise Wrong("sent greet('Ada')", outcome.error, means)
    if outcome.value != "hello, Ada":
        raise Wrong("sent greet('Ada')", str(outcome), "'hello, Ada' is right")
    if not any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(ast.parse(room.source))):
        raise Wrong(
            "read your file", "it has no async def", "the body stays a coroutine: it waits with await"
        )


def task_2(room: Room) -> None:
    (room.folder / "effects").unlink(missing_ok=True)
    for number in range(5):
        room.value("greet", f"customer {number}")
    loops = {(effect["pid"], effect["loop"]) for effect in room.effects("loop")}
    if not loops:
        raise Wrong(
            "sent greet 5 times", "its body did not say on which loop it ran", "keep the line with note(…)"
        )
    if len(loops) > 1:
        means = "asyncio.run makes a new loop for each task, and closes it: a kept client is useless then"
        raise Wrong("sent greet 5 times", f"they ran on {len(loops)} loops", means)
