"""What the API refuses, and that it names the field, its value and what was expected."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.text_request import MAX_PROMPT
from tests.unit.test_api import NOBODY, PROMPT, rows, server, submitted

__all__ = ["server"]  # the fixture

pytestmark = pytest.mark.usefixtures("shop")

BODIES: list[tuple[Any, str]] = [
    ({}, "prompt: field required"),
    ({"prompt": ""}, "prompt=''"),
    ({"prompt": "   "}, "prompt='   '"),
    ({"prompt": 5}, "prompt=5"),
    ({"prompt": None}, "prompt=None"),
    ({"prompt": ["a"]}, "prompt=['a']"),
    ({"prompt": "x" * (MAX_PROMPT + 1)}, f"at most {MAX_PROMPT} characters"),
    ({"prompt": "\ud800"}, "prompt='\\ud800'"),
    (PROMPT | {"model": ""}, "model=''"),
    (PROMPT | {"model": "x" * 101}, "model='xxx"),
    (PROMPT | {"model": "oracle"}, "model='oracle': no such model; use one of markov"),
    (PROMPT | {"max_tokens": 0}, "max_tokens=0"),
    (PROMPT | {"max_tokens": "5"}, "max_tokens='5'"),
    (PROMPT | {"max_tokens": 1.5}, "max_tokens=1.5"),
    (PROMPT | {"max_tokens": 10**6}, "max_tokens=1000000"),
    (PROMPT | {"seed": -1}, "seed=-1"),
    (PROMPT | {"seed": 2**63}, "seed=9223372036854775808"),
    (PROMPT | {"seed": 10**4000}, "seed="),
    (PROMPT | {"promt": "x"}, "promt='x'"),
    ([], "the body=[]"),
    ("text", "the body='text'"),
    (None, "the body"),
]


@pytest.mark.parametrize(("body", "text"), BODIES, ids=[text for _, text in BODIES])
def test_a_wrong_field_is_named_with_its_value(server: TestClient, body: Any, text: str) -> None:
    answer = server.post("/tasks", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert text in answer.json()["detail"]
    assert len(answer.text) < 1000
    assert rows() == 0


@pytest.mark.parametrize(
    "body", ["", "{", "nonsense", '{"prompt": "a"', b"\xff\xfe\x00", "[" * 100_000, '{"prompt": NaN}']
)
def test_a_body_that_is_no_json_is_refused(server: TestClient, body: str | bytes) -> None:
    answer = server.post("/tasks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]


def test_a_prompt_of_a_megabyte_is_refused_whether_or_not_its_length_is_said(server: TestClient) -> None:
    body = json.dumps({"prompt": "x" * 1_000_000}).encode()
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    for content in (body, pieces):
        answer = server.post("/tasks", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "262,144 bytes" in answer.json()["detail"]
    assert rows() == 0


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        (f"/tasks/{NOBODY}", 404, NOBODY),
        ("/tasks/nobody", 422, "task_id='nobody'"),
        ("/tasks/%00", 422, "task_id="),
        (f"/tasks/{NOBODY}/events", 404, NOBODY),
        ("/tasks?limit=0", 422, "limit='0'"),
        ("/tasks?limit=101", 422, "limit='101'"),
        ("/tasks?limit=many", 422, "limit='many'"),
        (f"/tasks?before={NOBODY}", 404, NOBODY),
        ("/tasks?before=x", 422, "before='x'"),
        ("/tasks?status=lost", 422, "status='lost'"),
        ("/../settings.py", 404, ""),
        ("/%2e%2e/settings.py", 404, ""),
    ],
)
def test_a_wrong_address_is_answered_clearly(server: TestClient, path: str, code: int, text: str) -> None:
    answer = server.get(path)
    assert answer.status_code == code, answer.text
    assert text in answer.json()["detail"]


@pytest.mark.parametrize("key", ["x" * 201, "é", "\x7f"])
def test_a_key_that_cannot_be_kept_is_refused(server: TestClient, key: str) -> None:
    answer = server.post("/tasks", json=PROMPT, headers={b"Idempotency-Key": key.encode()})
    assert (answer.status_code, "Idempotency-Key" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "event", ["x", "1", "1-", "-1-1", "1-1-1", "99999999999999999999-0", "1-1 ", "\u0661-\u0661"]
)
def test_a_broken_last_event_id_is_refused(server: TestClient, event: str) -> None:
    path = submitted(server).headers["location"]
    answer = server.get(f"{path}/events", headers={b"Last-Event-ID": event.encode()})
    assert (answer.status_code, "Last-Event-ID" in answer.json()["detail"]) == (400, True)
