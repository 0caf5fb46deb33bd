"""Each wrong task stands under the notebook that shows it first."""

import re

from settings import ROOT

TEXT = (ROOT / "lab" / "wrong_tasks.py").read_text()
NOTEBOOKS = {path.name[:2]: path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_the_sections_are_in_the_order_of_the_notebooks_and_hold_what_these_show_first() -> None:
    _, *parts = re.split(r"^# --- (\d\d) .* -+$", TEXT, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(sections) == sorted(sections)
    standing = {task: number for number, section in sections.items() for task in tasks_in(section)}
    assert standing == {task: first_notebook_with(task) for task in tasks_in(TEXT)}
    assert len(standing) > 20


def tasks_in(text: str) -> list[str]:
    return re.findall(r"^@app\.task.*?\n(?:async )?def (\w+)", text, re.MULTILINE | re.DOTALL)


def first_notebook_with(task: str) -> str:
    return min(number for number, text in NOTEBOOKS.items() if re.search(rf"\b{task}\b", text))


def test_each_wrong_task_says_what_is_right_or_has_it_next() -> None:
    docstrings = re.findall(r'^    """(.*?)"""$', TEXT, re.MULTILINE | re.DOTALL)
    wrong = [position for position, text in enumerate(docstrings) if "Wrong" in text]
    assert len(wrong) > 15
    for position in wrong:
        following = "".join(docstrings[position + 1 : position + 4])
        assert "Right:" in docstrings[position] or "Right" in following, docstrings[position]
