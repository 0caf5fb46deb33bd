"""A claim that fails names the lesson that makes it."""

from collections.abc import Generator

import pytest

from settings import ROOT


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    claim = (getattr(item, "function", None).__doc__ or "").split(" ")[0] if report.failed else ""
    for lesson in (ROOT / "notebooks").glob(f"{claim.partition('.')[0]}_*.ipynb") if claim else ():
        report.sections.append(("lesson", f"Claim {claim} is made in notebooks/{lesson.name}"))
