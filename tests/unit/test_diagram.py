"""The picture of a canvas, before it is sent: Mermaid text and its text twin. No broker is needed."""

import json
from typing import Any

import pytest
from celery import chain, chord, group

from lab.diagram import canvas_of, diagram
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
    assert len(diagram(greet.s("x" * 10_000)).text()) < 60


def test_a_diagram_leaves_the_canvas_as_it_is() -> None:
    canvas = chain(compared(), greet.si("Ada")).on_error(report_failure.s())
    before = json.dumps(canvas)
    diagram(canvas).text()
    assert json.dumps(canvas) == before


def test_a_canvas_that_came_as_json_is_drawn_too() -> None:
    sent = json.loads(json.dumps(compared()))
    assert diagram(chord.from_dict(sent)).mermaid == CHORD


def test_notebooks_get_mermaid_markdown_and_text() -> None:
    picture = diagram(fetch_data.s("north") | process_item.s())
    assert picture._repr_mimebundle_() == {
        "text/plain": picture.text(),
        "text/markdown": f"```mermaid\n{CHAIN}```",
        "text/vnd.mermaid": CHAIN,
    }


def test_what_is_no_canvas_is_refused() -> None:
    with pytest.raises(TypeError, match=r"3 is a int and not a canvas. Write task.s"):
        diagram(3)  # type: ignore[arg-type]


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
