"""Text, piece by piece: the built-in model, and a server that speaks the OpenAI protocol with its errors."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from services import markov
from services.openai_text import LONGEST_WAIT
from services.text_generation import TextResult, generate, generate_async
from services.text_request import MAX_PROMPT, MAX_TOKENS, PermanentError, TemporaryError, text_request
from settings import settings
from tests.openai_server import (
    Answer,
    OpenAiServer,
    breaks,
    cuts,
    fails,
    forgets_its_end,
    says,
    waits,
)


def generated(model: str = "markov", seed: int | None = 1, **arguments: int) -> tuple[TextResult, list[str]]:
    tokens: list[str] = []
    request = text_request("Alice was beginning", model, seed=seed, **arguments)
    return generate(request, tokens.append, lambda percent, step: None), tokens


def generated_async(model: str) -> tuple[TextResult, list[str]]:
    tokens: list[str] = []

    async def on_token(piece: str) -> None:
        tokens.append(piece)

    async def on_progress(percent: int, step: str) -> None:
        pass

    request = text_request("Alice was beginning", model)
    return asyncio.run(generate_async(request, on_token, on_progress)), tokens


BOTH_WAYS = pytest.mark.parametrize("ask", [generated, generated_async])


# --- the built-in model ---


def test_the_same_seed_gives_the_same_text_and_no_seed_another_one() -> None:
    assert generated() == generated()
    assert generated(seed=2) != generated()
    assert len({generated(seed=None)[0]["text"] for _ in range(3)}) == 3


def test_each_word_follows_the_two_before_it_somewhere_in_the_book() -> None:
    result, tokens = generated(max_tokens=50)
    words = ["was", "beginning", *result["text"].split()]
    book = " ".join(markov.BOOK.read_text().split())
    assert all(" ".join(words[at : at + 3]) in book for at in range(len(words) - 2))
    assert result["tokens"] == len(tokens) == 50
    assert "".join(tokens).strip() == result["text"]


def test_async_and_plain_give_the_same_text() -> None:
    request = text_request("Alice", seed=7)

    async def collect() -> list[str]:
        return [piece async for piece in markov.pieces_async(request)]

    assert asyncio.run(collect()) == list(markov.pieces(request))


def test_a_prompt_of_other_words_gives_a_text_too() -> None:
    assert generate(text_request("Привет 123"), len, lambda *_: None)["tokens"] == 200  # type: ignore[arg-type]


def test_progress_is_told_and_stays_below_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.text_generation.REPORT_SECONDS", 0)
    told: list[tuple[int, str]] = []
    generate(text_request("Alice", max_tokens=4), lambda _: None, lambda *progress: told.append(progress))
    assert [percent for percent, _ in told] == [25, 50, 75, 99]
    assert told[0][1] == "1 of at most 4 tokens"


def test_what_the_listener_raises_ends_the_work() -> None:
    def stop(piece: str) -> None:
        raise KeyError(piece)

    with pytest.raises(KeyError):
        generate(text_request("Alice"), stop, lambda *_: None)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"prompt": ""}, "prompt=''"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, "prompt="),
        ({"prompt": 5}, "prompt=5"),
        ({"prompt": "x", "model": ""}, "model=''"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens=0"),
        ({"prompt": "x", "max_tokens": MAX_TOKENS + 1}, f"max_tokens={MAX_TOKENS + 1}"),
        ({"prompt": "x", "seed": -1}, "seed=-1"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        text_request(**arguments)  # type: ignore[arg-type]


def test_a_model_of_a_server_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "openai_api_key", None)
    with pytest.raises(PermanentError, match="model='llama'.*use one of markov.*OPENAI_API_KEY"):
        generated("llama")


# --- a server ---


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAiServer]:
    with OpenAiServer() as server:
        monkeypatch.setattr(settings, "openai_base_url", server.url)
        monkeypatch.setattr(settings, "openai_api_key", SecretStr("sk-secret"))
        monkeypatch.setattr(settings, "openai_timeout_seconds", 5.0)
        monkeypatch.setattr("services.openai_text._client", lambda pid: _fresh())
        yield server


def _fresh() -> object:
    import openai

    from services.openai_text import _options

    return openai.OpenAI(**_options())


@BOTH_WAYS
def test_a_text_comes_in_pieces(server: OpenAiServer, ask) -> None:
    server.answers = [says("Once ", "upon ", "a time.")]
    result, tokens = ask("llama")
    assert tokens == ["Once ", "upon ", "a time."]
    assert result == {"text": "Once upon a time.", "tokens": 3, "model": "llama"}
    [request] = server.requests
    assert (request["path"], request["key"]) == ("/v1/chat/completions", "Bearer sk-secret")
    assert request["messages"] == [{"role": "user", "content": "Alice was beginning"}]
    assert (request["model"], request["max_tokens"], request["stream"]) == ("llama", 200, True)


PASSES: dict[str, tuple[Answer, str]] = {
    "429": (fails(429), "too many requests"),
    "500": (fails(500), "has failed"),
    "503": (fails(503), "has failed"),
    "409": (fails(409), "busy"),
    "cut": (cuts("Once "), "hung up"),
    "no end": (forgets_its_end("Once "), "in the middle"),
    "error event": (breaks('{"error": {"message": "overloaded"}}'), "overloaded"),
    "no JSON": (breaks("{"), "cannot be read"),
}
STAYS: dict[str, tuple[Answer, str]] = {
    "400": (fails(400), "refuses the request"),
    "401": (fails(401), "OPENAI_API_KEY"),
    "403": (fails(403), "does not allow"),
    "404": (fails(404), "no such model"),
    "422": (fails(422), "refuses the request"),
    "quota": (fails(429, code="insufficient_quota"), "429"),
    "long": (fails(429, Retry_After=str(LONGEST_WAIT + 1)), "601 seconds"),
}


@BOTH_WAYS
@pytest.mark.parametrize("name", PASSES)
def test_what_may_pass_is_told_so_after_one_request(server: OpenAiServer, ask, name: str) -> None:
    answer, words = PASSES[name]
    server.answers = [answer]
    with pytest.raises(TemporaryError, match=words) as caught:
        ask("llama")
    assert len(server.requests) == 1  # Celery retries, and nobody else
    assert "sk-secret" not in str(caught.value)
    assert "model='llama'" in str(caught.value)


@BOTH_WAYS
@pytest.mark.parametrize("name", STAYS)
def test_what_stays_is_told_so(server: OpenAiServer, ask, name: str) -> None:
    answer, words = STAYS[name]
    server.answers = [answer]
    with pytest.raises(PermanentError, match=words):
        ask("llama")


def test_retry_after_is_a_number_or_a_date_or_nothing(server: OpenAiServer) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    found = []
    for value in ("7", soon, "soon", format_datetime(datetime.now(UTC), usegmt=True)):
        server.answers = [fails(429, Retry_After=value)]
        with pytest.raises(TemporaryError) as caught:
            generated("llama")
        found.append(caught.value.seconds)
    number, date, nothing, past = found
    assert (number, nothing, past) == (7.0, None, 0.0)
    assert date is not None
    assert 50 < date <= 100


@BOTH_WAYS
def test_a_token_that_does_not_come_in_time_may_come_next_time(
    server: OpenAiServer, monkeypatch: pytest.MonkeyPatch, ask
) -> None:
    monkeypatch.setattr(settings, "openai_timeout_seconds", 0.2)
    gate = threading.Event()
    server.answers = [waits(gate, "Once ")]
    with pytest.raises(TemporaryError, match="in time"):
        ask("llama")
    gate.set()


def test_a_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch, server: OpenAiServer) -> None:
    monkeypatch.setattr(settings, "openai_base_url", "http://127.0.0.1:9/v1")
    with pytest.raises(TemporaryError, match="127.0.0.1:9.*cannot be reached"):
        generated("llama")


def test_when_nobody_listens_any_more_the_server_sees_its_connection_closed(server: OpenAiServer) -> None:
    gate = threading.Event()
    server.answers = [waits(gate, "Once ", "upon ")]

    def stop(piece: str) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        generate(text_request("Alice", "llama"), stop, lambda *_: None)
    gate.set()
    assert server.hung_up.wait(10)
