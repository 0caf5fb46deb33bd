"""The API in this process: what it keeps, whose it is. No broker answers here."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from api import dispatcher
from api.app import app
from api.inbox import Inbox
from api.users import COOKIE
from services.database import reading
from services.models import TaskRecord
from services.task_records import Created, KeyReused, Wanted, create_all, find
from services.task_runs import claim
from tests.waiting import wait_for

PROMPT = {"prompt": "A short story"}
NOBODY = "00000000-0000-0000-0000-000000000000"

pytestmark = pytest.mark.usefixtures("any_shop")


def no_answer(*_: object) -> None:
    raise ConnectionError("connection refused")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Run the API, and return the client of a user whom it knows. Other tests may have left a broker."""
    for name in ("publish", "check_broker"):
        monkeypatch.setattr(dispatcher, name, no_answer)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        client.get("/tasks")
        yield client


def another_user() -> TestClient:
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    client.get("/tasks")
    return client


def submitted(client: TestClient, key: str | None = None, **changed: Any) -> Response:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/tasks", json=PROMPT | changed, headers=headers)


def rows() -> int:
    with reading() as session:
        return session.scalar(select(func.count()).select_from(TaskRecord)) or 0


# --- what it keeps ---


def test_a_submission_is_kept_and_can_be_looked_at(server: TestClient) -> None:
    answer = submitted(server, max_tokens=20, seed=7)
    assert answer.status_code == 201
    task = answer.json()
    assert answer.headers["location"] == f"/tasks/{task['id']}"
    assert (task["status"], task["arguments"]["seed"], task["result"]) == ("pending", 7, None)
    assert server.get(answer.headers["location"]).json() | {"note": ""} == task | {"note": ""}
    assert find(task["id"]).arguments["prompt"] == "A short story"


def test_the_same_key_gives_the_task_that_is_there(server: TestClient) -> None:
    first, again = submitted(server, "key-1"), submitted(server, "key-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert submitted(another_user(), "key-1").status_code == 201
    assert rows() == 2


def test_the_same_key_with_another_body_is_refused(server: TestClient) -> None:
    submitted(server, "key-1")
    answer = submitted(server, "key-1", prompt="Another story")
    assert answer.status_code == 409
    assert "'key-1'" in answer.json()["detail"]
    assert rows() == 1


def test_requests_that_come_at_once_share_a_transaction_and_one_key_makes_one_row() -> None:
    async def submit() -> list[Created | BaseException]:
        inbox = Inbox()
        wanted = [Wanted("task", {"n": number % 2}, "ada", f"key-{number % 10}") for number in range(40)]
        other = Wanted("task", {"n": 5}, "ada", "key-0")
        return await asyncio.gather(*map(inbox.put, [*wanted, other]), return_exceptions=True)

    *created, reused = asyncio.run(submit())
    assert sum(one.is_new for one in created if isinstance(one, Created)) == 10 == rows()
    assert len({one.record.id for one in created if isinstance(one, Created)}) == 10
    assert isinstance(reused, KeyReused)


def test_rows_of_one_transaction_are_told_apart() -> None:
    made = create_all([Wanted("task", {"n": number}, "ada") for number in range(5)])
    assert [one.record.arguments for one in made if isinstance(one, Created)] == [{"n": n} for n in range(5)]


def test_pages_lead_to_the_oldest_task_and_repeat_none(server: TestClient) -> None:
    ids = [submitted(server).json()["id"] for _ in range(5)]
    submitted(another_user())
    seen: list[str] = []
    while page := server.get("/tasks", params={"limit": 2} | ({"before": seen[-1]} if seen else {})).json():
        seen += [task["id"] for task in page]
    assert sorted(seen) == sorted(ids)
    assert server.get("/tasks", params={"status": "failed"}).json() == []


def test_a_task_that_waits_is_cancelled_and_run_again(server: TestClient) -> None:
    path = submitted(server).headers["location"]
    assert server.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert server.post(f"{path}/replay").json()["status"] == "pending"
    assert server.post(f"{path}/replay").status_code == 409


def test_a_task_that_runs_is_asked_to_end_and_one_that_has_ended_is_not(server: TestClient) -> None:
    task_id = submitted(server).json()["id"]
    run = claim(task_id)
    assert run
    assert server.post(f"/tasks/{task_id}/cancel").json()["cancel_requested"]
    run.complete({"text": "The end"})
    answer = server.post(f"/tasks/{task_id}/cancel")
    assert (answer.status_code, "completed" in answer.json()["detail"]) == (409, True)


def test_with_the_broker_away_the_answer_says_what_keeps_the_task(server: TestClient) -> None:
    path = submitted(server).headers["location"]
    wait_for("the dispatcher has tried", lambda: server.get(path).json()["note"] == dispatcher.AWAY)
    assert submitted(server).json()["note"] == dispatcher.AWAY
    assert server.get(path).json()["status"] == "pending"


def test_with_the_database_away_the_answer_is_503(
    server: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(wanted: list[Wanted]) -> None:
        raise OperationalError("INSERT", {}, OSError("connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr("api.inbox.create_all", away)
        answer = submitted(server)
    assert (answer.status_code, "database" in answer.json()["detail"]) == (503, True)
    assert submitted(server).status_code == 201  # the inbox goes on


# --- whose task it is ---


def test_a_task_of_another_user_does_not_exist(server: TestClient) -> None:
    path = submitted(server).headers["location"]
    bob = another_user()
    answers = [
        bob.get(path),
        bob.get(f"{path}/events"),
        bob.post(f"{path}/cancel"),
        bob.post(f"{path}/replay"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert answers[0].json() == bob.get(f"/tasks/{NOBODY}").json() | {
        "detail": f"No task has the id '{path.removeprefix('/tasks/')}'."
    }
    assert bob.get("/tasks").json() == []
    assert server.get(path).json()["status"] == "pending"


def test_the_cookie_is_for_this_page_alone_and_the_database_does_not_have_it(server: TestClient) -> None:
    cookie = TestClient(app, base_url="http://127.0.0.1:8000").get("/tasks").headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    record = find(submitted(server).json()["id"])
    assert record.user_id != server.cookies[COOKIE]
    assert re.fullmatch("[0-9a-f]{64}", record.user_id)


@pytest.mark.parametrize("cookie", [None, "", "short", "x" * 44, "../../etc", "é" * 43])
def test_who_has_no_cookie_of_ours_can_change_nothing(server: TestClient, cookie: str | None) -> None:
    headers = {b"Cookie": f"{COOKIE}={cookie}".encode()} if cookie is not None else {}
    answer = TestClient(app, base_url="http://127.0.0.1:8000").post("/tasks", json=PROMPT, headers=headers)
    assert (answer.status_code, "GET /tasks" in answer.json()["detail"]) == (401, True)
    assert rows() == 0


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example:8000"}, 400),
        ({"Host": ""}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),  # another program on this machine
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 422),  # what a form of another page can send
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 201),
    ],
)
def test_only_our_own_page_and_programs_can_submit(
    server: TestClient, headers: dict[str, str], code: int
) -> None:
    body = json.dumps(PROMPT)
    answer = server.post("/tasks", content=body, headers={"Content-Type": "application/json"} | headers)
    assert answer.status_code == code, answer.text
    assert rows() == (code == 201)


def test_the_page_can_load_and_run_only_our_own_files(server: TestClient) -> None:
    page = server.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    files = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert {"main.js", "style.css"} <= set(files)
    assert [server.get(f"/{name}").status_code for name in files] == [200] * len(files)
    assert not re.search(r"<script>|<style|style=| on\w+=", page.text)
