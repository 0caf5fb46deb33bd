"""Timelines and tables as HTML: they fit, they fold what is idle, and they say in words what they show."""

import re
from dataclasses import replace
from random import Random

import pytest
from rich.table import Table

from lab import markup
from lab.chart import chart
from lab.runs import Run
from lab.scale import Scale

LOST = Run("a", "tasks.add", "one@host", sent=0.0, received=0.1, started=0.2, outcome="started")
AGAIN = Run(
    "a",
    "tasks.add",
    "two@host",
    redelivered=True,
    received=20.0,
    started=20.1,
    ended=20.5,
    outcome="succeeded",
)
OTHER = Run("b", "tasks.mail", "two@host", sent=0.0, received=0.1, started=0.2, ended=1.0, outcome="failed")


def places(html: str) -> list[float]:
    return [float(place) for place in re.findall(r"left:([\d.]+)%", html)]


def test_a_long_time_in_which_nothing_runs_is_folded_and_told() -> None:
    scale = Scale([LOST, AGAIN, OTHER])
    [fold] = scale.folds
    assert fold.seconds == pytest.approx(19.0)
    assert scale.at(1.0) == pytest.approx(fold.begin)
    assert scale.at(20.0) - scale.at(1.0) == pytest.approx(0.06)
    for view in (chart([LOST, AGAIN, OTHER], 80), markup.timeline([LOST, AGAIN, OTHER])):
        assert "Left out, because nothing runs: 19.0 s." in view


@pytest.mark.parametrize(
    "runs",
    [
        [Run("a", started=0.0, ended=20.0, outcome="succeeded"), AGAIN],  # one runs
        [Run("a", sent=0.0, started=4.0, ended=4.1, outcome="succeeded")],  # the wait is short
        [
            Run("a", sent=float(moment), started=moment + 6.0, ended=moment + 6.1)
            for moment in range(0, 60, 2)
        ],
    ],
    ids=["busy", "short", "no gap"],
)
def test_all_else_is_drawn_to_scale(runs: list[Run]) -> None:
    assert Scale(runs).folds == []


def test_a_row_says_in_words_what_its_boxes_show() -> None:
    html = markup.timeline([LOST, AGAIN, OTHER])
    assert 'aria-label="add a redelivered, redelivered, 0.10 s in the worker, ran 0.40 s, succeeded"' in html
    assert 'aria-label="mail b, 0.10 s in the queue, 0.10 s in the worker, ran 0.80 s, failed"' in html
    assert "no end seen for 20.30 s" in html


def test_with_a_present_moment_what_may_go_on_grows_and_what_came_again_does_not_run() -> None:
    running = Run("c", "tasks.long", "two@host", started=20.0, outcome="started")
    html = markup.timeline([LOST, AGAIN, running], now=25.0)
    assert "ran 5.00 s, started" in html
    assert "no end seen for" in html
    assert html.count('class="lost"') == 2  # the lost run, and the legend
    assert "ran 5.00 s" not in markup.timeline([LOST, AGAIN, running])


def test_names_of_others_are_text_and_no_markup() -> None:
    run = Run("<i>", "tasks.<script>", '"><b>', sent=0.0, ended=1.0, outcome="failed")
    html = markup.timeline([run])
    assert "<script>" not in html
    assert '"><b>' not in html
    table = Table("id", "value", title="<u>")
    table.add_row("<script>-0123456789", "</td>")
    assert re.findall("<script>|<u>|</td></td>", markup.of_view(table)) == []


def test_an_id_is_cut_and_its_value_is_not() -> None:
    table = Table("id", "value")
    table.add_row("0123456789", "x" * 300)
    html = markup.of_view(table)
    assert '<td class="whole" title="0123456789">01234567…</td>' in html
    assert "x" * 300 in html


@pytest.mark.parametrize("seed", range(50))
def test_every_box_lies_inside_of_its_row(seed: int) -> None:
    chance = Random(seed)

    def moment() -> float | None:
        return chance.choice([None, 0.0, chance.random(), chance.uniform(0, 100), chance.uniform(0, 1e9)])

    runs = [
        Run(str(number % 3), "t", "w", sent=moment(), received=moment(), started=moment(), ended=moment())
        for number in range(chance.randrange(1, 9))
    ]
    runs = [replace(run, outcome="failed" if run.ended is not None else "sent") for run in runs if run.times]
    runs = runs or [LOST]
    html = markup.timeline(runs, now=moment())
    assert all(0 <= place <= 100 for place in places(html))
    assert all(len(line) <= 80 for line in chart(runs, 80).splitlines() if "|" in line)
