"""Views as HTML, for a notebook and for the live view: they fit any width, in a light and in a dark page.

Each picture is made of text and boxes. What a box shows is also said in words, for a screen reader.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lab.chart import MOST_ROWS, NO_EVENTS, SIGNS, choose, counts, labels_of, left_out, not_drawn, spans
from lab.console import printable
from lab.runs import ENDINGS, Run
from lab.scale import Scale, goes_on

LABEL_LETTERS = 45
SHORT_ID = 8
BOXES = {".": "queued", ":": "taken", "=": "runs", "?": "lost", "~": "fold"}
SAID = {".": "{} in the queue", ":": "{} in the worker", "=": "ran {}", "?": "no end seen for {}"}

# JupyterLab and VS Code say in the page which theme they have. The rules of JupyterLab for tables are undone.
STYLE = """<style>
.learn { --ink: #1d1d1d; --faint: #5c5c5c; --line: #767676; --run: #2b6ca3; --taken: #d5d5d5; --bad: #b3261e;
  color: var(--ink); font: 12px/1.5 system-ui, sans-serif; max-width: 100%; overflow-wrap: anywhere }
[data-jp-theme-light="false"] .learn, .vscode-dark .learn, [data-theme="dark"] .learn { --ink: #ececec;
  --faint: #b4b4b4; --line: #9a9a9a; --run: #7ab5e6; --taken: #555; --bad: #ff9c94 }
.learn p { margin: 4px 0; font-size: 12px; color: var(--ink) }
.learn .row { display: grid; grid-template-columns: minmax(8em, 34%) 1fr 5em; gap: 8px; align-items: center }
.learn .worker { color: var(--faint); border-top: 1px solid var(--line); margin-top: 2px }
.learn .axis { display: flex; justify-content: space-between; color: var(--faint) }
.learn .lane { position: relative; height: 14px; margin-right: 2.5em }
.learn .lane i { position: absolute; top: 1px; bottom: 1px; min-width: 2px; box-sizing: border-box }
.learn .lane b { position: absolute; top: -2px; padding-left: 3px; white-space: nowrap; color: var(--ink) }
.learn .took { text-align: right; white-space: nowrap }
.learn .queued { border: 1px dotted var(--line) }
.learn .taken { background: var(--taken); border: 1px solid var(--line) }
.learn .runs { background: var(--run) }
.learn .lost { border: 1px solid var(--bad);
  background: repeating-linear-gradient(45deg, var(--bad) 0 2px, transparent 2px 7px) }
.learn .fold { opacity: .5; border: solid var(--line); border-width: 0 2px; top: -1px; bottom: -1px;
  background: repeating-linear-gradient(90deg, var(--line) 0 2px, transparent 2px 5px) }
.learn .legend span { margin-right: 1.2em; white-space: nowrap }
.learn .legend i { display: inline-block; width: 1.6em; height: 10px; margin-right: 4px;
  box-sizing: border-box }
.learn table, .learn table.dataframe { table-layout: auto; width: auto; max-width: 100%; margin: 2px 0 10px;
  border-collapse: collapse; font-size: 12px; color: var(--ink) }
.learn caption { text-align: left; font-weight: bold; color: var(--ink); padding: 2px 6px }
.learn th, .learn td { text-align: left !important; vertical-align: top; padding: 2px 6px;
  white-space: normal; color: var(--ink); max-width: none; overflow-wrap: anywhere }
.learn thead th { color: var(--faint); border-bottom: 1px solid var(--line); overflow-wrap: normal }
.learn td.whole { white-space: nowrap }
</style>"""


def page(*parts: str) -> str:
    """Return parts of HTML as one piece that can stand in any page."""
    return f'{STYLE}<div class="learn" lang="en">{"".join(parts)}</div>'


# --- tables -----------------------------------------------------------------------------------------------


def of_view(view: object) -> str:
    """Return what is shown in a terminal as HTML: groups of tables and texts."""
    match view:
        case Group():
            return "".join(map(of_view, view.renderables))
        case Table():
            return _table(view)
        case str() | Text():
            return f"<p>{escape(_plain(view))}</p>"
    raise TypeError(f"view={view!r}: neither a group, nor a table, nor text")


def _table(table: Table) -> str:
    heads = [_plain(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, heads, row))}</tr>" for row in rows)
    caption = f"<caption>{escape(_plain(table.title))}</caption>" if table.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(head: str, content: object) -> str:
    text = _plain(content)
    if head == "id" and len(text) > SHORT_ID:  # the whole one is shown by the mouse, and in text()
        return f'<td class="whole" title="{escape(text)}">{escape(text[:SHORT_ID])}…</td>'
    kind = ' class="whole"' if re.fullmatch(r"[\d.,]+( s)?", text) else ""
    return f"<td{kind}>{escape(text)}</td>"


def _plain(content: object) -> str:
    return content.plain if isinstance(content, Text) else str(content or "")


# --- timelines --------------------------------------------------------------------------------------------


def timeline(
    runs: Sequence[Run], rows: int = MOST_ROWS, now: float | None = None, notes: Iterable[str] = ()
) -> str:
    """Draw `runs` as HTML, at most `rows` of them, and count all of them.

    `now`: these runs go on, and what has not ended lasts until then. `notes` are sentences below.
    """
    if not runs:
        return page(f"<p>No task event was seen. {escape(NO_EVENTS)}</p>")
    shown, others = choose(runs, rows)
    scale = Scale(runs, now)
    labels = labels_of(shown, LABEL_LETTERS)
    used: set[str] = {"~"} if scale.folds else set()
    lines = []
    last = None
    for run, label in zip(shown, labels, strict=True):
        if run.worker != last:
            last = run.worker
            lines.append(f'<div class="worker">{escape(printable(run.worker) or "no worker yet")}</div>')
        lines.append(_row(run, label, scale, used, lasts=now is not None and goes_on(run, runs)))
    axis = f'<div class="axis"><span>0 s</span><span>{scale.seconds:.2f} s</span></div>'
    head = f'<div class="row"><span></span><div class="lane">{axis}</div><span></span></div>'
    told = [counts(runs)]
    told += [f"Left out, because nothing runs: {left_out(scale)}."] if scale.folds else []
    told += [not_drawn(others)] if others else []
    sentences = "".join(f"<p>{escape(text)}</p>" for text in [*told, *notes])
    return page(head, f'<div role="list">{"".join(lines)}</div>', _legend(used), sentences)


def _row(run: Run, label: str, scale: Scale, used: set[str], *, lasts: bool) -> str:
    boxes, said = [], []
    for sign, begin, end in spans(run, scale.end):
        shown = "=" if sign == "?" and lasts and run.started is not None else sign
        used.add(shown)
        boxes.append(_box(shown, scale.at(begin), scale.at(end)))
        said.append(SAID[shown].format(f"{end - begin:.2f} s"))
    boxes += [_box("~", fold.begin, fold.end) for fold in scale.folds]
    letters = ["D"] if run.redelivered else []
    if run.ended is not None or not lasts:
        letters.append(ENDINGS.get(run.outcome, ("?", ""))[0])
    used.update(letters)
    last = scale.end if run.ended is None else run.ended
    boxes.append(f'<b style="left:{scale.at(last):.2%}">{" ".join(letters)}</b>')
    words = ", ".join([label, *(["redelivered"] if run.redelivered else []), *said, run.outcome])
    took = "" if run.ran is None else f"{run.ran:.3f} s"
    return (
        f'<div class="row" role="listitem" aria-label="{escape(words)}"><span>{escape(label)}</span>'
        f'<div class="lane">{"".join(boxes)}</div><span class="took">{took}</span></div>'
    )


def _box(sign: str, begin: float, end: float) -> str:
    return f'<i class="{BOXES[sign]}" style="left:{begin:.2%};width:{end - begin:.2%}"></i>'


def _legend(used: set[str]) -> str:
    entries = [
        f"<span>{_sign(sign)}{escape(meaning)}</span>" for sign, meaning in SIGNS.items() if sign in used
    ]
    return f'<p class="legend">{" ".join(entries)}</p>'


def _sign(sign: str) -> str:
    return f'<i class="{BOXES[sign]}"></i>' if sign in BOXES else f"<b>{sign}</b> "
