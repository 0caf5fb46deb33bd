"""The services of the basic and advanced tasks, without a broker."""

import json
import math
import os
import re
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path
from typing import Any, NotRequired

import pytest
from typing_extensions import TypedDict

from services.arguments import checked
from services.calculator import calculate
from services.error_texts import shown
from services.failures import failures_of, record_failure
from services.invoices import INVOICES, charge_once, charges, forget_charges
from services.simulation import simulate_service
from services.stations import compare, describe, fetch, save, sources
from services.words import count_words
from settings import ROOT, settings


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "state_dir", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("operation", "expected"), [("add", 8), ("subtract", 4), ("multiply", 12), ("divide", 3)]
)
def test_the_calculator_knows_four_operations(operation: str, expected: float) -> None:
    assert calculate(6, 2, operation) == expected


def test_the_calculator_names_its_operations_when_it_refuses_one() -> None:
    with pytest.raises(ValueError, match=r"operation='%': use one of add, subtract, multiply, divide"):
        calculate(1, 2, "%")


def test_dividing_by_zero_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        calculate(1, 0, "divide")


def test_words_are_counted_without_regard_to_case() -> None:
    assert count_words("The cat sees the dog.") == {
        "words": 5,
        "different": 4,
        "top": {"the": 2, "cat": 1, "sees": 1},
    }
    assert count_words("") == {"words": 0, "different": 0, "top": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("cafe\u0301 nai\u0308ve", ["café", "naïve"]),  # each accent is a character of its own
        ("Don\u2019t say it", ["don\u2019t", "say", "it"]),
        ("'rock 'n' roll' -- _", ["rock", "n", "roll"]),
        ("a well-known example, e.g. this one", ["a", "well-known", "example", "e.g", "this", "one"]),
        ("1,000.5 a,b x_1 3/4", ["1,000.5", "a", "b", "x_1", "3", "4"]),
        # Persian, held together by a joiner that nobody sees.
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0628\u0631\u0648\u0645",
            ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0628\u0631\u0648\u0645"],
        ),
        ("סָבָּא אמר", ["סָבָּא", "אמר"]),
        ("😀 1️⃣ ok 👍🏽", ["1️⃣", "ok"]),
        ("我喜欢猫。狗", ["我喜欢猫", "狗"]),  # no spaces: as far as the next sign
        ("สวัสดีชาวโลก", ["สวัสดีชาวโลก"]),
    ],
)
def test_words_of_every_script_are_found(text: str, words: list[str]) -> None:
    assert count_words(text, top=9) == {
        "words": len(words),
        "different": len(words),
        "top": dict.fromkeys(words, 1),
    }


def test_an_accent_is_the_same_in_one_character_and_in_two() -> None:
    assert count_words("Café CAFE\u0301") == {"words": 2, "different": 1, "top": {"café": 2}}


# Lines of Unicode's WordBreakTest.txt (version 15). Here / stands for its sign of an end, + for none.
# Left out: colons and semicolons between letters or digits, and what a dictionary would be needed for.
@pytest.mark.parametrize(
    "line",
    [
        "/ 0061 / 0020 / 0062 /",
        "/ 0061 + 0308 / 0020 / 0062 /",
        "/ 0061 + 2060 + 0308 / 0020 / 0061 /",
        "/ 0061 + 0062 + 00AD / 0020 / 0061 /",
        "/ 0061 + 200D / 0021 / 0061 /",
        "/ 0063 + 0061 + 006E + 0027 + 0074 /",
        "/ 0063 + 0061 + 006E + 2019 + 0074 /",
        "/ 0061 + 0062 + 00AD + 0062 + 0079 /",
        "/ 0061 / 0024 / 002D / 0033 + 0034 + 002C + 0035 + 0036 + 0037 + 002E + 0031 + 0034 / 0025 / 0062 /",
        "/ 0033 + 0061 /",
        "/ 0061 + 0031 /",
        "/ 0061 / 0027 / 0031 /",
        "/ 0031 / 002E / 0061 /",
        "/ 0061 / 002C / 0061 /",
        "/ 0061 + 002E + 0061 /",
        "/ 0061 / 002E / 002E / 0061 /",
        "/ 0061 / 002C / 002C / 0031 /",
        "/ 0031 + 005F + 0031 / 002C / 002C / 0061 /",
        "/ 0061 + 005F + 0061 / 002E / 002C / 0061 /",
        "/ 05D0 + 0027 / 0020 / 05D0 /",
        "/ 0061 / 1F1E6 + 1F1E7 / 1F1E8 / 0062 /",
        "/ 1F6D1 + 200D + 1F6D1 / 0061 /",
    ],
)
def test_words_end_where_unicode_ends_them(line: str) -> None:
    parts = ["".join(chr(int(code, 16)) for code in part.split("+")) for part in line.strip(" /").split("/")]
    words = [part for part in parts if any(unicodedata.category(character)[0] in "LN" for character in part)]
    assert count_words("".join(parts))["words"] == len(words)


def test_stations_are_read_described_saved_and_compared(state: Path) -> None:
    summaries = [describe(fetch(source)) for source in sources()]
    assert len(summaries) == 4
    assert save(summaries[0]).parent == state / "summaries"
    comparison = compare(summaries)
    assert comparison["days"] == sum(summary["days"] for summary in summaries)
    assert comparison["warmest_station"] in sources()


STATION_WRITER = """
import sys
from services.stations import save
for number in range(150):
    save({"source": "east", "days": 60, "mean": float(sys.argv[1]), "coldest": 0.0, "warmest": 9.0})
"""


def test_several_processes_save_one_station_and_it_is_always_whole(state: Path) -> None:
    environment = os.environ | {"STATE_DIR": str(state), "DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-c", STATION_WRITER]
    writers = [subprocess.Popen([*command, mean], env=environment, cwd=ROOT) for mean in "123"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        for path in (state / "summaries").glob("*.json"):
            seen.add(json.loads(path.read_text())["mean"])
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert seen
    assert os.listdir(state / "summaries") == ["east.json"]


@pytest.mark.parametrize("source", ["../orders", "/etc/passwd", "EAST", "east.csv", "", "x" * 10_000])
def test_a_station_without_a_file_is_refused(state: Path, source: str) -> None:
    match = f"source={re.escape(shown(source))}: no such station; use one of east, north, south, west"
    with pytest.raises(ValueError, match=match):
        fetch(source)
    with pytest.raises(ValueError, match=match):
        save({"source": source, "days": 1, "mean": 1.0, "coldest": 1.0, "warmest": 1.0})
    assert not (state / "summaries").exists()


def test_a_station_without_readings_is_refused() -> None:
    with pytest.raises(ValueError, match="no readings"):
        describe({"source": "empty", "readings": []})


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare([])


def test_an_invoice_is_charged_once_even_by_many_at_the_same_moment() -> None:
    answers: list[bool] = []
    start = threading.Barrier(8)

    def charge() -> None:
        start.wait()
        answers.append(charge_once("INV-1002"))

    threads = [threading.Thread(target=charge) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    assert charges() == {"INV-1002": INVOICES["INV-1002"]}
    forget_charges()
    assert charges() == {}


def test_an_unknown_invoice_is_refused_and_nothing_is_charged() -> None:
    with pytest.raises(ValueError, match=r"unique_id='INV-9': no such invoice; use one of INV-1001"):
        charge_once("INV-9")
    assert charges() == {}


def test_the_simulated_service_fails_as_often_as_told() -> None:
    with pytest.raises(ConnectionError, match="attempt 2 of 2"):
        simulate_service(2, failures=2)
    assert simulate_service(3, failures=2) == "the service answered at attempt 3"


def test_failures_are_found_by_task() -> None:
    assert failures_of("a") == []
    record_failure("a", "first")
    record_failure("b", "other")
    record_failure("a", "second\nline")
    assert failures_of("a") == ["first", "second\nline"]


@checked
def double(number: int, times: int = 1) -> int:
    if number == 13:
        raise ValueError("from inside")
    return number * 2**times


def test_checked_arguments_pass_and_wrong_ones_are_named_with_their_value() -> None:
    assert double(3) == 6
    with pytest.raises(ValueError, match=r"^double: number='3': input should be a valid integer$"):
        double("3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"number='x': .*; times=None: "):
        double("x", times=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        double()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^from inside$"):
        double(13)


class Step(TypedDict):
    """A part of the argument of `listed`."""

    name: str
    days: NotRequired[int]


@checked
def listed(steps: list[Step], share: float = 1.0, size: int | float = 1) -> int:
    return len(steps)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": {"name": "a"}}, "steps={'name': 'a'}: input should be a valid list"),
        ({"steps": [{"name": "a"}, {"name": 3}]}, "steps[1].name=3: input should be a valid string"),
        ({"steps": [{"name": "a", "days": "3"}]}, "steps[0].days='3': input should be a valid integer"),
        ({"steps": [{"days": 3}]}, "steps[0]={'days': 3}: name is missing"),
        ({"steps": [], "share": math.nan}, "share=nan: input should be a finite number"),
        ({"steps": [], "share": math.inf}, "share=inf: input should be a finite number"),
        ({"steps": [], "size": "9"}, "size='9': input should be a valid integer or a valid number"),
        ({"steps": [], "size": math.nan}, "size=nan: input should be a valid integer or a finite number"),
    ],
)
def test_what_is_wrong_inside_an_argument_is_named_by_its_place(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('listed: ' + text)}$"):
        listed(**arguments)


def test_of_many_wrong_values_the_first_are_named() -> None:
    with pytest.raises(ValueError, match=r"steps\[4\]=4: .*; and 99,995 more$") as refused:
        listed(list(range(100_000)))  # type: ignore[arg-type]
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "value",
    ["x" * 10**7, list(range(10**5)), {"k" * 10**6: "v" * 10**6}, json.loads("[" * 900 + "]" * 900)],
    ids=["long", "many", "wide", "deep"],
)
def test_an_error_stays_short_however_large_the_value(value: object) -> None:
    for arguments in ({"steps": value}, {"steps": [{"name": value}]}, {"steps": [], "share": value}):
        if arguments != {"steps": [{"name": value}]} or not isinstance(value, str):
            with pytest.raises(ValueError, match=r"^listed: (steps|share)") as refused:
                listed(**arguments)
            assert len(str(refused.value)) < 2000


def test_errors_of_the_services_stay_short_too() -> None:
    for function in (fetch, charge_once, lambda name: calculate(1, 2, name)):
        with pytest.raises(ValueError, match="use one of") as refused:
            function("x" * 10**6)
        assert len(str(refused.value)) < 400
