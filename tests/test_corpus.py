"""The real specs: each ends in one outcome, and registering them again changes nothing."""

import time
from dataclasses import asdict
from pathlib import Path

import pytest

from dispatch_controller import spec_files
from dispatch_controller.core import ids
from dispatch_controller.core.plan import KnownTask, report
from dispatch_controller.core.registration import plan
from dispatch_controller.model import TaskStatus
from dispatch_controller.spec_files import Found

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "specs"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus of real specs at {CORPUS}")


@pytest.fixture(scope="module")
def found() -> Found:
    started = time.monotonic()
    read = spec_files.find([CORPUS])
    assert time.monotonic() - started < 10
    return read


def test_every_file_has_one_outcome(found: Found) -> None:
    files = sorted(str(path) for path in CORPUS.rglob("*.md"))
    outcomes = [spec.path for spec in found.specs]
    outcomes += [document.path for document in found.documents]
    outcomes += [error.file for error in found.errors]
    assert sorted(outcomes) == files
    assert len(found.specs) + len(found.errors) == 600
    assert len(found.documents) == 24


def test_only_what_the_contract_calls_an_error_is_one(found: Found) -> None:
    reasons = [error.reason for error in found.errors]
    assert sum(r.startswith(("modifies is empty", "modifies is missing")) for r in reasons) == 43
    assert sum("absolute" in r for r in reasons) == 1
    assert len(reasons) == 44


def test_no_value_of_a_real_spec_is_odd(found: Found) -> None:
    assert not any(spec.warnings for spec in found.specs)
    assert not found.warnings


def test_where_modifies_may_be_empty_only_the_second_file_of_an_id_is_refused() -> None:
    projects = {spec.project for spec in spec_files.find([CORPUS]).specs}
    found = spec_files.find([CORPUS], modifies_optional=projects)
    assert (len(found.specs), len(found.errors)) == (599, 1)
    planned = plan(found.specs, [], located={})
    assert (len(planned.inserts), len(planned.errors)) == (598, 1)
    assert "_archive" in planned.errors[0].file


def test_planning_twice_leaves_all_unchanged(found: Found) -> None:
    planned = plan(found.specs, [], located={})
    outcome = report(planned, documents=found.documents, errors=found.errors)
    assert {key: outcome[key] for key in ("registered", "updated", "unchanged", "documents")} == {
        "registered": 556,
        "updated": 0,
        "unchanged": 0,
        "documents": 24,
    }
    assert (len(outcome["errors"]), len(planned.cycles)) == (44, 0)

    rows = [KnownTask(status=TaskStatus.PENDING, **asdict(columns)) for columns in planned.inserts]
    again = plan(found.specs, rows, located={}, reported=planned.standing)
    assert (len(again.unchanged), again.inserts, again.updates) == (556, (), ())
    assert (again.links, again.hashes, again.events, again.errors) == ((), (), (), ())


def test_every_dependency_is_a_task_or_is_reported(found: Found) -> None:
    planned = plan(found.specs, [], located={})
    known = {columns.id for columns in planned.inserts}
    open_ends = [d for columns in planned.inserts for d in columns.depends_on if d not in known]
    blocked = [warning for warning in planned.warnings if "blocked" in warning.reason]
    assert len(open_ends) == len(blocked) == 9


def test_every_task_has_a_folder_of_its_own(found: Found) -> None:
    planned = plan(found.specs, [], located={})
    folders = {(c.project, ids.folder_name(c.id).casefold()) for c in planned.inserts}
    assert len(folders) == len(planned.inserts)
