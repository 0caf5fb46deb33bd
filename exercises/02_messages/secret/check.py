import json

from broker import broker_channel, open_message
from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.worker()
    for user, right in (("ada", True), ("bob", False), ("eve", True)):
        outcome = room.outcome(f"called check_login({user!r})", room.sent("check_login", user))
        if outcome.value is not right:
            means = "the password of ada and that of eve have 12 letters or more, bob's has not"
            raise Wrong(f"called check_login({user!r})", str(outcome), means)


def task_2(room: Room) -> None:
    room.end_worker()
    room.sent("check_login", "eve")
    with broker_channel() as channel:
        message = open_message(channel.client.lindex("basic", 0), "basic", 0)
    body = json.dumps([message.args, message.kwargs])
    secret = room.look("PASSWORDS")["eve"]
    if secret in body:
        means = "the password is in the message, for everybody who can read the queue"
        if secret not in json.dumps(message.headers):
            means = "argsrepr hides it in events and in Flower. In the message itself it still stands"
        raise Wrong(
            "called check_login('eve'), and looked into the queue", f"the arguments are {body}", means
        )
    if "eve" not in body:
        raise Wrong(
            "called check_login('eve')",
            f"the arguments are {body}",
            "send the user's name: the task needs it",
        )
