"""Registering a large folder of real specs: quick, complete, and the same again."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Starter
from tests.e2e.homes import write_home

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "specs"
MOST_SECONDS = 5.0


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no specs at {CORPUS}")
def test_the_corpus_is_registered_whole_and_quickly(controller_on: Starter, tmp_path: Path) -> None:
    controller = controller_on(write_home(tmp_path / "home", {"off": 0})).start()
    begun = time.monotonic()
    first = controller.register(CORPUS)
    took = time.monotonic() - begun
    files = sorted(path for path in CORPUS.rglob("*.md") if path.is_file())
    counts = ("registered", "updated", "unchanged", "documents")
    failed = {error["file"] for error in first["errors"]}
    assert sum(first[name] for name in counts) + len(failed) == len(files)
    assert took < MOST_SECONDS

    again = controller.register(CORPUS)
    assert again["unchanged"] == first["registered"]
    assert (again["registered"], again["updated"]) == (0, 0)
    assert (again["documents"], again["errors"]) == (first["documents"], first["errors"])

    rows = {row["spec_file"] for row in controller.tasks().values()}
    lost = [
        path for path in files
        if _names_a_task(path) and str(path) not in rows and str(path) not in failed
    ]  # fmt: skip
    assert lost == []
    assert len(rows) == first["registered"]
    assert controller.errors() == []


def _names_a_task(path: Path) -> bool:
    """Whether a file has front matter with a task_id; read in the simplest way there is."""
    text = path.read_text("utf-8", "replace")
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    return front is not None and re.search(r"(?m)^task_id\s*:", front[1]) is not None
