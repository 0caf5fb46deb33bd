from random import randint, sample

from broker import broker_channel, open_message
from lab.workshop.room import Room, Wrong


def order() -> tuple[dict[int, int], list[int]]:
    articles = sample(range(10, 99), 4)
    return {article: randint(100, 900) for article in articles}, articles[:3]


def task_1(room: Room) -> None:
    prices, articles = order()
    room.worker()
    outcome = room.outcome("called send_order", room.sent("send_order", prices, articles))
    if outcome.state != "SUCCESS":
        means = "the key that the task looks for is a number, and the one that arrived is text"
        raise Wrong("sent an order of 3 articles", outcome.error, means)
    if outcome.value != (right := sum(prices[article] for article in articles)):
        raise Wrong("sent an order of 3 articles", f"{outcome.value!r}, not {right}", "the sum is wrong")


def task_2(room: Room) -> None:
    room.end_worker()
    prices, articles = order()
    room.sent("send_order", prices, articles)
    with broker_channel() as channel:
        raw = channel.client.lindex("basic", 0)
    message = open_message(raw, "basic", 0)
    sent = [*message.args, *message.kwargs.values()]
    if any(isinstance(value, dict) for value in sent):
        saw = f"the message in the queue holds {sent!r}"
        raise Wrong(
            "called send_order, and looked into the queue", saw, "a dictionary is sent: its keys are text now"
        )
