"""Uploads of recordings: to disk while they come, refused as soon as they are too long or no recording."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from services.recording_runs import analyze_run
from services.recordings import FOLDER
from services.redis_clients import client as redis_client
from services.task_records import find
from services.task_runs import claim
from services.token_stream import RedisStreamPublisher
from settings import ROOT
from tests.unit.test_api import another_user, rows, server

__all__ = ["server"]  # the fixture

TALK = (ROOT / "data/speech/talk.wav").read_bytes()

pytestmark = pytest.mark.usefixtures("shop")


def upload(client: TestClient, content: bytes, key: str | None = None) -> Response:
    headers = {"Content-Type": "audio/wav"} | ({"Idempotency-Key": key} if key else {})
    return client.post("/audio", content=content, headers=headers)


def kept(shop: Path) -> list[str]:
    return [path.name for path in (shop / FOLDER).iterdir()] if (shop / FOLDER).exists() else []


def test_a_recording_is_kept_and_analysed(server: TestClient, shop: Path) -> None:
    answer = upload(server, TALK)
    assert answer.status_code == 201, answer.text
    task = answer.json()
    assert (shop / task["arguments"]["path"]).read_bytes() == TALK
    run = claim(task["id"])
    assert run
    analyze_run(run, run.arguments["path"], RedisStreamPublisher(redis_client(), run.task_id))
    seen = server.get(f"/tasks/{task['id']}").json()
    assert (seen["status"], seen["percent"]) == ("completed", 100)
    assert 0 <= seen["result"]["overall_score"] <= 100


def test_the_same_recording_with_the_same_key_is_one_task(server: TestClient, shop: Path) -> None:
    first, again = upload(server, TALK, "key-1"), upload(server, TALK, "key-1")
    assert (first.status_code, again.status_code, rows()) == (201, 200, 1)
    other = (ROOT / "data/speech/vowel.wav").read_bytes()
    assert upload(server, other, "key-1").status_code == 409
    assert upload(another_user(), TALK, "key-1").status_code == 201


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF", b"not audio at all", b"\x00" * 100, b"RIFF\x00\x00\x00\x00AVI LIST", b"ID3\x04" * 9],
)
def test_what_is_no_recording_is_refused_and_nothing_is_kept(
    server: TestClient, shop: Path, content: bytes
) -> None:
    answer = upload(server, content)
    assert (answer.status_code, "send a WAV or a FLAC file" in answer.json()["detail"]) == (422, True)
    assert (kept(shop), rows()) == ([], 0)


def test_what_says_that_it_is_too_long_is_refused_before_it_arrives(server: TestClient, shop: Path) -> None:
    headers = {"Content-Type": "audio/wav", "Content-Length": "2000000000"}
    assert server.post("/audio", content=b"RIFF", headers=headers).status_code == 413
    assert kept(shop) == []


def test_a_recording_that_is_broken_inside_fails_with_its_reason(server: TestClient) -> None:
    task = upload(server, TALK[:1000]).json()
    run = claim(task["id"])
    assert run
    with pytest.raises(ValueError, match="cut off"):
        analyze_run(run, run.arguments["path"], RedisStreamPublisher(redis_client(), run.task_id))
    assert "cut off" in str(find(task["id"]).error)
