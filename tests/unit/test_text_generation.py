"""The built-in generator, and what its text does to a task record."""

import itertools

import pytest

from services import markov, task_runs
from services.database import engine
from services.task_records import create, find, request_cancel
from services.task_runs import ClaimLost, Run, claim
from services.text_generation import generate
from services.text_request import text_request
from services.token_stream import Kind, RedisStreamPublisher
from tests.unit.test_task_records import let_pass

TASK = "tasks.ai_tasks.run_ai_text_generation"


class Told(RedisStreamPublisher):
    """Keeps what is published: Redis itself is in tests/integration."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def publish(self, kind: Kind, **data: object) -> None:
        self.events.append((kind, data))


def claimed() -> Run:
    run = claim(create(TASK, {"prompt": "Alice"}, "ada").record.id)
    assert run
    return run


def text_of(prompt: str = "Down the hole", seed: int | None = 7, tokens: int = 60) -> str:
    return "".join(markov.words(text_request(prompt, "markov", tokens, seed)))


def test_each_pair_of_words_stands_in_the_book():
    book = " ".join(markov.BOOK.read_text().partition("\n\n\n")[2].split())
    told = text_of(tokens=3000).split()
    assert len(told) == 3000
    followers, _ = markov.model()
    assert all(f"{one} {two} " in book for one, two in followers)
    known = sum(f"{one} {two}" in book for one, two in itertools.pairwise(told))
    assert known > 2990  # at the end of the book it goes on with another sentence


def test_a_seed_gives_the_same_text_and_another_prompt_another_one():
    assert text_of() == text_of()
    assert len({text_of(seed=1), text_of(seed=2), text_of("The cat")}) == 3
    assert len({text_of(seed=None) for _ in range(3)}) == 3


def test_a_text_goes_on_where_the_prompt_stands_in_the_book():
    assert text_of("Do you know the White Rabbit", tokens=1).strip() in ("with", "was")


def test_an_unknown_model_names_those_that_there_are():
    with pytest.raises(ValueError, match=r"model='gpt'.*markov, markov-slow"):
        list(markov.words(text_request("x", "gpt")))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"prompt": ""}, "prompt=''"),
        ({"prompt": "x" * 10_001}, "prompt="),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens=0"),
        ({"prompt": "x", "seed": -1}, "seed=-1"),
    ],
)
def test_what_cannot_be_is_named(arguments: dict[str, object], named: str):
    with pytest.raises(ValueError, match=named):
        text_request(**arguments)  # type: ignore[arg-type]


@pytest.mark.usefixtures("any_shop")
class TestRow:
    def test_the_row_has_the_text_and_the_stream_each_word(self):
        run, told = claimed(), Told()
        result = generate(run, text_request("Alice was", seed=1, max_tokens=20), told)
        assert result
        record = find(run.task_id)
        assert (record.status, record.percent, record.result) == ("completed", 100, result)
        tokens = [str(data["text"]) for kind, data in told.events if kind == "token"]
        assert (len(tokens), "".join(tokens).strip()) == (20, result["text"])
        assert [kind for kind, _ in told.events if kind != "token"] == ["restart", "status", "end"]

    def test_a_cancelled_text_ends_at_the_next_word(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(task_runs, "HEARTBEAT", 0.01)
        run, told = claimed(), Told()
        request_cancel(run.task_id)
        assert generate(run, text_request("Alice", "markov-slow", 4000), told) is None
        assert find(run.task_id).status == "cancelled"
        assert told.events[-1] == ("end", {"status": "cancelled"})

    def test_an_error_is_in_the_row(self):
        run = claimed()
        with pytest.raises(ValueError, match="no such model"):
            generate(run, text_request("Alice", "gpt"), Told())
        assert "no such model" in str(find(run.task_id).error)

    def test_a_worker_that_lost_its_claim_writes_nothing(self):
        run = claimed()
        let_pass(2 * task_runs.LEASE)
        other = claim(run.task_id)
        assert other
        with pytest.raises(ClaimLost):
            generate(run, text_request("Alice", max_tokens=5), Told())
        other.complete({"text": "of the other"})
        assert find(run.task_id).result == {"text": "of the other"}
        engine().dispose()
