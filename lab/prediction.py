"""Predict, then run: what the learner expects is asked before the run, and compared with what happened."""

from collections.abc import Sequence
from typing import Any

from IPython.display import display
from ipywidgets import RadioButtons, Text

LABEL = "Your prediction:"


class Prediction:
    """A question to the learner: buttons for the choices, or a field to type into. `str()` gives the answer.

    Where a front end shows no widgets, it is a line of text, and the learner writes the answer as code.
    """

    def __init__(self, choices: Sequence[object]) -> None:
        self.choices = [str(choice) for choice in choices]
        if self.choices:
            self.field = RadioButtons(
                options=self.choices,
                value=None,
                description=LABEL,
                style={"description_width": "initial"},
                layout={"width": "max-content"},
            )
        else:
            self.field = Text(description=LABEL, style={"description_width": "initial"})

    def __str__(self) -> str:
        return self.field.value or ""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        asked = f"{LABEL} {' | '.join(self.choices)}".rstrip()
        no_widget = (
            'Nothing to click or to type into? Write  prediction = "…"  in the cell, and run it again.'
        )
        return {**self.field._repr_mimebundle_(), "text/plain": f"{asked}\n{no_widget}"}


def predict(*choices: object) -> Prediction:
    """Ask what will happen next: one of `choices`, or without choices whatever the learner types."""
    prediction = Prediction(choices)
    display(prediction)  # type: ignore[no-untyped-call]
    return prediction


def compare(predicted: object, happened: object) -> None:
    """Print the prediction beside what happened. Capitals do not count, and 3 is the same as "3"."""
    answer = str(predicted).strip()
    print(f"You predicted: {answer or 'nothing'}")
    print(f"What happened: {happened}")
    if not answer:
        print("Next time, predict first. A wrong guess is good: you remember it.")
    elif answer.casefold() == str(happened).casefold():
        print("Right.")
    else:
        print("Not so. Read on to see why.")
