from lab.workshop.room import Room, Wrong

SECONDS = 2.5


def calls(room: Room) -> int:
    """Let two workers begin for 2.5 seconds, and return how many calls there were."""
    if "calls" not in room.kept:
        for name in ("one", "two"):
            room.worker(["basic"], name, concurrency=4, options=["--prefetch-multiplier", "8"])
        room.task("call_service")
        for number in range(40):
            room.send("call_service", number)
        room.wait("the first call", lambda: room.effects("call"))
        begin = room.effects("call")[0]["at"]
        room.wait("the time is over", lambda: False, SECONDS + 0.2)
        room.kept["calls"] = sum(effect["at"] < begin + SECONDS for effect in room.effects("call"))
    return int(room.kept["calls"])


def task_1(room: Room) -> None:
    count = calls(room)
    limit = room.option("call_service", "rate_limit")
    if not limit or count > 4 * SECONDS + 4:
        means = "each worker has a limit of its own: two workers begin twice as many"
        if not limit:
            means = "there is no limit"
        raise Wrong("let two workers call for 2.5 s", f"{count} calls began. rate_limit is {limit!r}", means)
    if str(limit) == "30/m":
        raise Wrong("read rate_limit", f"it is {limit!r}", "let each worker have its half of the 4 calls")


def task_2(room: Room) -> None:
    count = calls(room)
    if count < 4 * SECONDS * 0.8:
        means = "the service would allow 4 in a second: each of the two workers may begin 2"
        raise Wrong("let two workers call for 2.5 s", f"{count} calls began", means)
