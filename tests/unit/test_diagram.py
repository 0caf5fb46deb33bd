"""The picture of a canvas, before it is sent: Mermaid text and its text twin. No broker is needed."""

import json
import re
from html import escape
from typing import Any, cast

import pytest
from celery import chain, chord, group

from celery_app import app
from lab.diagram import STYLES, canvas_of, diagram
from tasks.advanced_tasks import fetch_data, mean_temperature, process_item, report_failure, summarize
from tasks.basic_tasks import add, greet

CHAIN = """flowchart LR
  n1["fetch_data.s('north')"]
  n2["process_item.s()"]
  n1 --> n2
"""

CHORD = """flowchart LR
  subgraph g1["chord header of 2"]
  n2["fetch_data.s('north')"]
  n3["process_item.s()"]
  n4["fetch_data.s('south')"]
  n5["process_item.s()"]
  end
  n6["summarize.s()"]
  n2 --> n3
  n4 --> n5
  g1 --> n6
"""


def compared() -> Any:
    return chord([fetch_data.s(source) | process_item.s() for source in ("north", "south")], summarize.s())


def test_a_chain_is_a_row_of_tasks() -> None:
    assert diagram(fetch_data.s("north") | process_item.s()).mermaid == CHAIN


def test_a_chord_is_a_frame_with_an_arrow_to_its_body() -> None:
    assert diagram(compared()).mermaid == CHORD


def test_the_text_twin_says_the_same() -> None:
    assert diagram(compared()).text().splitlines() == [
        "chord header of 2",
        "├── chain",
        "│   ├── fetch_data.s('north')",
        "│   └── process_item.s()",
        "├── chain",
        "│   ├── fetch_data.s('south')",
        "│   └── process_item.s()",
        "└── body: summarize.s()",
    ]


def test_a_chord_inside_a_chain_inside_a_group() -> None:
    picture = diagram(group(chain(compared(), greet.si("Ada")), add.s(1, 2)))
    assert picture.mermaid.count("subgraph") == picture.mermaid.count("  end\n") == 2
    lines = {line.strip("│├└─ ").removeprefix("body: ") for line in picture.text().splitlines()}
    assert {"group of 2", "chord header of 2", "add.s(1, 2)", "greet.si('Ada')"} <= lines


def test_an_immutable_signature_is_written_si() -> None:
    assert "n2[\"greet.si('Ada')\"]" in diagram(add.s(1, 2) | greet.si("Ada")).mermaid


def test_an_error_callback_is_a_dotted_arrow() -> None:
    picture = diagram(add.s(1, 2).on_error(report_failure.s()))
    assert 'n1 -. "on error" .-> n2' in picture.mermaid
    assert "└── on error: report_failure.s()" in picture.text()


def test_an_error_callback_of_a_chain_belongs_to_each_of_its_tasks_and_is_drawn_once() -> None:
    mermaid = diagram((add.s(1, 2) | add.s(3)).on_error(report_failure.s())).mermaid
    assert mermaid.count("report_failure") == 1
    assert mermaid.count(".->") == 2


def test_a_callback_has_an_arrow_that_says_then() -> None:
    signature = add.s(1, 2)
    signature.link(greet.si("Ada"))
    assert 'n1 -- "then" --> n2' in diagram(signature).mermaid


def test_a_group_of_thousands_is_summed_up() -> None:
    picture = diagram(group(add.s(number, 1) for number in range(5000)))
    assert "… and 4993 more" in picture.text()
    assert len(picture.mermaid) < 1000
    assert "group of 5000" in picture.mermaid


def test_of_a_long_chain_the_first_steps_and_the_last_one_are_drawn() -> None:
    text = diagram(chain(*[add.si(number, 1) for number in range(100)])).text().splitlines()
    assert text[7:] == ["├── add.si(6, 1)", "├── … and 92 more", "└── add.si(99, 1)"]


ONE, TWO, THREE, FOUR = (greet.si(name) for name in ("one", "two", "three", "four"))


@pytest.mark.parametrize(
    ("canvas", "lines"),
    [
        # A group with a step after it becomes the header of a chord.
        (
            lambda: chain(ONE, group(TWO, THREE), group(THREE, FOUR)),
            ["chain", "one", "chord header of 2", "two", "three", "body: group of 2", "three", "four"],
        ),
        # A group of one in a chain, and an empty one, are gone.
        (lambda: chain(ONE, group([TWO]), group([]), THREE), ["chain", "one", "two", "three"]),
        # A group in a group is gone. In a header, its members come in the reverse order.
        (lambda: group(ONE, group(TWO, THREE)), ["group of 3", "one", "two", "three"]),
        (
            lambda: chord([ONE, group(TWO, THREE)], FOUR),
            ["chord header of 3", "one", "three", "two", "body: four"],
        ),
    ],
    ids=["group and group", "group of one", "group in a group", "group in a header"],
)
def test_a_canvas_is_drawn_as_celery_sends_it(canvas: Any, lines: list[str]) -> None:
    text = [line.strip("│├└─ ") for line in diagram(canvas()).text().splitlines()]
    assert [re.sub(r"greet.si\('(\w+)'\)", r"\1", line) for line in text] == lines


def test_each_state_has_its_colour_of_text() -> None:
    for style in STYLES.values():
        ground, text = (re.search(rf"(?:^|,){name}:#(\w+)", style) for name in ("fill", "color"))
        assert ground
        assert text
        assert contrast(ground[1], text[1]) > 7


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG 2.2 defines it. 7 is its highest demand."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_chunks_and_starmap_show_their_messages() -> None:
    arguments = [("north",), ("south",), ("east",)]
    assert diagram(mean_temperature.chunks(arguments, 2)).text().splitlines() == [
        "2 chunks",
        "├── mean_temperature.starmap(items: 2)",
        "└── mean_temperature.starmap(items: 1)",
    ]
    assert diagram(mean_temperature.starmap(arguments)).text() == "mean_temperature.starmap(items: 3)"


@pytest.mark.parametrize("empty", [group([]), chain()])
def test_an_empty_canvas_is_one_box(empty: Any) -> None:
    assert diagram(empty).mermaid.count("n1[") == 1


@pytest.mark.parametrize("name", ['"]; x --> y', "```", "a\nb", "<b>&#35;", "end"])
def test_no_argument_can_leave_its_box(name: str) -> None:
    header, box = diagram(greet.s(name)).mermaid.splitlines()
    assert header == "flowchart LR"
    inside = box.removeprefix('  n1["').removesuffix('"]')
    assert not set(inside) & set('"`<>&')


def test_long_arguments_are_cut() -> None:
    assert diagram(greet.s("x" * 10_000)).text() == f"greet.s('{'x' * 24}…{'x' * 14}')"


def test_labels_that_are_cut_stay_different() -> None:
    names = [f"{'x' * 100}{number}{'x' * 100}" for number in range(3)]
    lines = diagram(group(greet.s(name) for name in [*names, names[0]])).text().splitlines()[1:]
    labels = [line.partition("─ ")[2] for line in lines]
    assert [label[-2:] for label in labels] == ["#1", "#2", "#3", "#1"]
    assert len(set(labels)) == 3
    assert max(map(len, labels)) == 50


def test_a_name_cannot_write_into_the_terminal() -> None:
    assert diagram(app.signature("\x1b[2J\ud800")).text() == "\\x1b[2J\\ud800.s()"


def test_a_diagram_leaves_the_canvas_as_it_is() -> None:
    canvas = chain(compared(), greet.si("Ada")).on_error(report_failure.s())
    before = json.dumps(canvas)
    diagram(canvas).text()
    assert json.dumps(canvas) == before


def test_a_canvas_that_came_as_json_is_drawn_too() -> None:
    sent = json.loads(json.dumps(compared()))
    assert diagram(chord.from_dict(sent)).mermaid == CHORD


def test_notebooks_get_mermaid_markdown_with_the_text_beside_it() -> None:
    picture = diagram(fetch_data.s("north") | process_item.s())
    shown = picture._repr_mimebundle_()
    assert shown["text/plain"] == picture.text()
    assert shown["text/markdown"].startswith(f"```mermaid\n{CHAIN}```\n\n<details>")
    assert escape(picture.text()) in shown["text/markdown"]


TASK = r"add is a task and not a signature. Write add.s\(…\)"
NUMBER = r"3 is a int and not a canvas. Write task.s"


def linked(signature: Any, callback: Any) -> Any:
    signature.link(callback)
    return signature


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        (3, NUMBER),
        (None, "None is a NoneType and not a canvas"),
        ({"a": 1}, "is a dict and not a canvas"),
        (add, TASK),
        (group(cast(Any, [add, add])), TASK),
        (group(cast(Any, [3])), NUMBER),
        (group([group(cast(Any, [add]))]), TASK),
        (chord([add.s(1, 1)], add), TASK),
        (chord([add.s(1, 1)]), r"This chord has no body. Write chord\(header, body.s\(…\)\)"),
        (add.s(1, 2) | group([chord([add.s(1, 1)]), add.s(3)]), "This chord has no body"),
        (add.s(1, 2).on_error(report_failure), r"report_failure is a task and not a signature"),
        (linked(add.s(1, 2), add), TASK),
    ],
    ids=range(12),
)
def test_what_is_no_canvas_is_refused(canvas: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        diagram(canvas)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("add", TASK),
        ("group([add, add])", TASK),
        ("chord([add.s(1, 1)])", "This chord has no body"),
        ("[add.s(1, 1)]", "is a list and not a canvas"),
    ],
)
def test_a_typed_expression_that_is_no_canvas_is_refused(expression: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        canvas_of(expression)


# --- a canvas that a learner types ---


def test_a_typed_canvas_may_use_all_tasks_and_the_canvas_words() -> None:
    typed = canvas_of(
        "chord([fetch_data.s(s) | process_item.s() for s in ('north', 'south')], summarize.s())"
    )
    assert diagram(typed).mermaid == CHORD
    assert diagram(canvas_of("group(simple_calculation.s(1, 2, 'add'))")).text().startswith("group of 1")


@pytest.mark.parametrize("expression", ["nope.s(1)", "add.s(1", "add.x(1)", "group(1", "1 / 0", "add.s(*1)"])
def test_a_mistyped_canvas_is_told_with_the_names_that_exist(expression: str) -> None:
    with pytest.raises(
        ValueError, match=r"does not work: \w+Error: .* Use chain, group, chord and the tasks add, "
    ):
        canvas_of(expression)


def test_a_task_that_was_called_is_no_canvas() -> None:
    with pytest.raises(TypeError, match=r"3 is a int and not a canvas"):
        canvas_of("add(1, 2)")
