from random import randint

from lab import mail_server
from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    room.make_tables()
    order, folder = randint(100, 999), room.sandbox.folder
    room.worker()
    before = len(mail_server.received(folder))
    mail_server.fail_next(folder, "450", "450")
    outcome = room.run("send_bill", order, "ada@example.org")
    did = "sent a bill, and the mail server answered 450 twice"
    mail_server.accept_again(folder)
    if outcome.state != "SUCCESS":
        means = "450 means not now: TemporaryMailError is worth a retry"
        if len(outcome.runs) > 1:
            means = "it gave up too early: 3 retries are asked for"
        raise Wrong(did, str(outcome), means)
    mails = [mail["Subject"] for mail in mail_server.received(folder)[before:]]
    if mails != [f"Bill {order}"]:
        raise Wrong(did, f"the server has {mails}", "one bill must arrive")
    if len(outcome.runs) != 3:
        raise Wrong(did, f"{len(outcome.runs)} runs", "each refused try is a retry: the third run sends it")
    mail_server.fail_next(folder, "450", "450", "450", "450")
    outcome = room.run("send_bill", randint(2000, 2999), "ada@example.org")
    mail_server.accept_again(folder)
    if outcome.state == "SUCCESS" or len(outcome.runs) != 4:
        did = "sent a bill, and the mail server answered 450 four times"
        raise Wrong(did, str(outcome), "3 retries are asked for, and then it fails: max_retries")


def task_2(room: Room) -> None:
    room.make_tables()
    room.worker()
    mail_server.fail_next(room.sandbox.folder, "550")
    outcome = room.run("send_bill", randint(1000, 1999), "nobody@example.org")
    did = "sent a bill, and the mail server answered 550"
    if len(outcome.runs) > 1:
        raise Wrong(
            did,
            f"{len(outcome.runs)} runs",
            "550 means never: a retry annoys the server, and ends on its black list",
        )
    if "PermanentMailError" not in outcome.error:
        raise Wrong(did, str(outcome), "nobody got the bill: the task must fail with its error")
