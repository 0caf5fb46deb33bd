from lab.evidence import waiting
from lab.workshop.room import Room, Wrong


def task_1(room: Room) -> None:
    workers = room.look("WORKERS")
    if not isinstance(workers, dict) or not all(isinstance(queues, list) for queues in workers.values()):
        raise Wrong("read WORKERS", repr(workers), "write a list of queues for each worker")
    if len(workers) > 2:
        raise Wrong("read WORKERS", f"it has {len(workers)} workers", "two must do: machines cost money")
    for name, queues in workers.items():
        room.worker(queues, name)
    for number in range(4):
        room.sent("send_report", number)
    makers = sum("advanced" in queues for queues in workers.values())
    room.wait(
        "reports run", lambda: sum(run.started is not None for run in room.runs(name="make_report")) >= makers
    )
    payment = room.sent("send_payment", 7)
    did = "sent 4 reports of 0.3 s, and then a payment"
    if not room.wait("the payment ends", payment.ready, 2):
        raise Wrong(did, f"after 2 s the payment is {payment.state}", "no worker serves the queue realworld")
    cashiers = {run.worker for run in room.runs(payment.id)}
    if busy := [run for run in room.runs(name="make_report") if run.worker in cashiers and run.started]:
        saw = f"{busy[0].worker.partition('@')[0]} made a report, and took the payment after it"
        raise Wrong(
            did, saw, "the worker that serves realworld was busy with reports: it serves advanced too"
        )


def task_2(room: Room) -> None:
    served = {queue for queues in room.look("WORKERS").values() for queue in queues}
    if missing := {"advanced", "realworld"} - served:
        saw = f"{waiting(*missing)} messages wait in {', '.join(missing)}"
        raise Wrong("counted what waits", saw, "no worker serves this queue")
