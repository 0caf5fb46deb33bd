"""The services of the basic and advanced tasks, without a broker."""

import threading
from pathlib import Path

import pytest

from services.arguments import checked
from services.calculator import calculate
from services.failures import failures_of, record_failure
from services.invoices import INVOICES, charge_once, charges, forget_charges
from services.simulation import simulate_service
from services.stations import compare, describe, fetch, save, sources
from services.words import count_words
from settings import settings


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


def test_stations_are_read_described_saved_and_compared(state: Path) -> None:
    summaries = [describe(fetch(source)) for source in sources()]
    assert len(summaries) == 4
    assert save(summaries[0]).parent == state / "summaries"
    comparison = compare(summaries)
    assert comparison["days"] == sum(summary["days"] for summary in summaries)
    assert comparison["warmest_station"] in sources()


def test_a_station_without_a_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source='\.\./orders': no such station"):
        fetch("../orders")


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
