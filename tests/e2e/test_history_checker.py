"""The checker finds what it is for: each rule broken once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import history
from tests.e2e.history import Job

JOBS = [
    Job("S1-a", "p", (), ("src/",), False, 0.0),
    Job("S2-b", "p", ("S1",), ("other",), False, 0.0),
    Job("S3-c", "p", (), ("SRC/x/*.py",), False, 0.0),
    Job("S4-d", "q", (), ("src/x/a.py",), False, 0.0),
]
GOOD = [("S1-a", 1.0, 2.0), ("S2-b", 2.5, 3.0), ("S3-c", 2.1, 2.9), ("S4-d", 1.0, 3.0)]


def violations(tmp_path: Path, runs: list[tuple[str, float, float | None]]) -> list[str]:
    lines = []
    for number, (task, start, end) in enumerate(runs):
        lines.append(f"start {task} 1 n:{number} {start}")
        if end is not None:
            lines.append(f"end {task} 1 n:{number} {end}")
    log = tmp_path / "log"
    log.write_text("\n".join(lines) + "\n")
    return history.violations(JOBS, history.read(log))


def test_a_history_without_fault_has_no_violation(tmp_path: Path) -> None:
    assert violations(tmp_path, [*GOOD]) == []


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (("S2-b", 1.5, 3.0), "S2-b started before S1-a had ended"),
        (("S3-c", 1.5, 3.0), "S1-a and S3-c ran at once, and both change src"),
        (("S4-d", 1.0, None), "S4-d never ended"),
    ],
)
def test_each_broken_rule_is_told(
    tmp_path: Path, run: tuple[str, float, float | None], found: str
) -> None:
    rest = [one for one in GOOD if one[0] != run[0]]
    (told,) = violations(tmp_path, [*rest, run])
    assert told.startswith(found)


def test_a_second_run_and_a_missing_one_are_told(tmp_path: Path) -> None:
    assert violations(tmp_path, [*GOOD, GOOD[3]])[0].startswith("S4-d ran 2 times")
    assert violations(tmp_path, [*GOOD[:3]]) == ["S4-d ran 0 times: []"]
