"""Drafts: held for a person, approved, dropped; and what a crash leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dispatch_controller.loops.operator import NotFound, NotPossible
from tests.factory.conftest import Bench, HandClock, MakeBench


def remark(bench: Bench, *texts: str, **entry: object) -> Path:
    root = bench.project("shop", **entry)
    (root / "a.py").write_text("".join(f"# TODO: {text}\n" for text in texts))
    return root


def clock(bench: Bench) -> HandClock:
    assert isinstance(bench.clock, HandClock)
    return bench.clock


async def test_a_dry_run_registers_nothing(bench: MakeBench) -> None:
    made = bench(dry_run=True)
    remark(made, "one", "two")
    [done] = await made.cycle()
    assert done["drafts"] == ["G1-01-one", "G1-02-two"]
    assert made.tasks() == []
    assert (made.home / "drafts" / "shop" / "G1-01-one.md").is_file()
    assert not (made.settings.specs / "shop").exists()
    # A second cycle asks for the same no more, and drafts count against the day.
    made.restart()
    await made.factory.run_once()
    assert len(await made.factory.drafts()) == 2
    assert (await made.factory.plan())["projects"][0]["made"] == 2


async def test_a_project_may_hold_its_own_and_a_run_may_be_dry(bench: MakeBench) -> None:
    made = bench()
    remark(made, "one", factory={"dry_run": True})
    await made.cycle()
    assert [draft["state"] for draft in await made.factory.drafts("shop")] == ["held"]
    other = made.project("other")
    (other / "b.py").write_text("# TODO: three\n")
    await made.factory.run_once("other", dry_run=True)
    assert made.tasks() == []
    assert [draft["id"] for draft in await made.factory.drafts("other")] == ["G1-01-three"]
    with pytest.raises(NotFound):
        await made.factory.run_once("nobody")


async def test_an_approved_draft_becomes_a_task_as_it_is_now(bench: MakeBench) -> None:
    made = bench(dry_run=True)
    remark(made, "one")
    await made.cycle()
    draft = made.home / "drafts" / "shop" / "G1-01-one.md"
    draft.write_text(draft.read_text().replace("modifies: [", "priority: 0\nmodifies: [").replace(
        "priority: 2\n", ""
    ))  # fmt: skip
    assert await made.factory.approve("shop", "G1-01-one") == "G1-01-one"
    [task] = made.tasks()
    assert (task.priority, task.spec_file) == (
        0, str((made.settings.specs / "shop" / "G1-01-one.md").resolve()),
    )  # fmt: skip
    assert await made.factory.drafts() == []
    assert [event.task_id for event in made.events("factory_approved")] == ["G1-01-one"]
    assert (await made.factory.plan())["projects"][0]["made"] == 1
    with pytest.raises(NotFound):
        await made.factory.approve("shop", "G1-01-one")


async def test_what_was_dropped_is_not_asked_for_again(bench: MakeBench) -> None:
    made = bench(dry_run=True)
    remark(made, "one")
    await made.cycle()
    await made.factory.drop("shop", "G1-01-one")
    assert await made.factory.drafts() == []
    made.restart()
    clock(made).now += 2 * 86_400
    await made.cycle()
    assert await made.factory.drafts() == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("task_id:", "id:", "is no spec yet"),
        ('"G1-01-one"', '"G9-01-other"', "is no spec yet"),
        ("modifies:", "changes:", "modifies is missing"),
    ],
)
async def test_a_draft_that_is_no_spec_is_not_registered(
    bench: MakeBench, old: str, new: str, reason: str
) -> None:
    made = bench(dry_run=True)
    remark(made, "one")
    await made.cycle()
    draft = made.home / "drafts" / "shop" / "G1-01-one.md"
    draft.write_text(draft.read_text().replace(old, new, 1))
    with pytest.raises(NotPossible, match=reason):
        await made.factory.approve("shop", "G1-01-one")
    assert made.tasks() == []
    assert len(await made.factory.drafts()) == 1


@pytest.mark.parametrize("name", ["../shop", "", "x/y", ".", "a" * 200])
async def test_a_path_is_no_draft(bench: MakeBench, name: str) -> None:
    made = bench()
    for project, draft in ((name, "G1-01-one"), ("shop", name)):
        with pytest.raises(NotFound):
            await made.factory.approve(project, draft)
        with pytest.raises(NotFound):
            await made.factory.drop(project, draft)


async def test_a_broken_note_beside_a_draft_loses_no_draft(bench: MakeBench) -> None:
    made = bench(dry_run=True)
    remark(made, "one")
    await made.cycle()
    (made.home / "drafts" / "shop" / "G1-01-one.json").write_text("{")
    [draft] = await made.factory.drafts()
    assert (draft["state"], draft["generation"]) == ("rejected", 0)
    assert await made.factory.approve("shop", "G1-01-one") == "G1-01-one"


async def test_rejected_drafts_do_not_pile_up(bench: MakeBench) -> None:
    program = "for n in range(9): print('---\\ntitle: x%d\\n---\\nNothing else.\\n' % n)"
    made = bench(generator="command", command={"argv": ["python3", "-c", program]})
    made.project("shop")
    for _ in range(13):
        clock(made).now += 1
        await made.factory.run_once()
    assert len(await made.factory.drafts()) == 100
    assert made.tasks() == []


async def test_generated_files_without_an_event_are_remembered(bench: MakeBench) -> None:
    """A kill between file and event, or somebody who cleared the table of events."""
    made = bench()
    remark(made, "one", "two")
    await made.cycle()
    before = made.generated()
    assert len(before) == 2
    from dispatch_controller.store.connection import get_db

    with get_db(made.store.path) as conn:
        conn.execute("DELETE FROM events")
    made.restart()
    for _ in range(3):
        await made.factory.run_once()
    assert made.generated() == before
    assert {event.details.get("adopted") for event in made.events("factory_generated")} == {True}
    remark(made, "one", "two", "three")
    await made.factory.run_once()
    assert made.generated() == [*before, "G2-01-three"]


async def test_a_folder_that_cannot_be_written_is_an_event(bench: MakeBench) -> None:
    made = bench()
    remark(made, "one")
    made.settings.specs.mkdir()
    (made.settings.specs / "shop").write_text("in the way")
    await made.cycle()
    assert made.tasks() == []
    assert len(made.events("factory_failed")) == 1
    (made.settings.specs / "shop").unlink()
    clock(made).now += 60
    await made.cycle()
    assert made.generated() == ["G1-01-one"]


async def test_projects_with_errors_paused_or_off_are_left_alone(bench: MakeBench) -> None:
    made = bench()
    for name, entry in (
        ("off", {"factory": {"enabled": False}}),
        ("paused", {"paused": True}),
        ("wrong", {"gates": 5}),
        ("bare", {"repo_local": None}),
    ):
        root = made.project(name, **entry)
        (root / "a.py").write_text("# TODO: one\n")
    assert await made.cycle() == []
    plan = await made.factory.plan()
    assert {row["project"]: row["steps"][1]["why"] for row in plan["projects"]} == {
        "off": "the factory is off for this project",
        "paused": "the project is paused",
        "bare": "gaps reads the checkout, and projects.json names none (repo_local)",
    }
    (made.home / "projects.json").write_text("{")
    with pytest.raises(ExceptionGroup, match="factory"):
        await made.cycle()
    assert made.tasks() == []


async def test_a_project_that_is_through_is_iterated_once_an_hour(bench: MakeBench) -> None:
    made = bench(min_pending=0)
    root = remark(made, "one")
    for number in range(10):
        status = "completed" if number < 7 else "failed"
        # Without files of their own the failed ones are no gaps.
        await made.spec("shop", f"S{number}-x", columns={"status": status, "modifies": "[]"})
    made.set("S0-x", status="pending")
    assert await made.cycle() == []
    made.set("S0-x", status="completed")
    [done] = await made.cycle()
    assert done["step"] == "check_and_iterate_projects"
    assert made.generated() == ["G1-01-one"]
    made.set("G1-01-one", status="completed")
    (root / "a.py").write_text("# TODO: two\n")
    clock(made).now += 3599
    assert await made.cycle() == []
    clock(made).now += 1
    await made.cycle()
    assert made.generated() == ["G1-01-one", "G2-01-two"]


async def test_the_fewest_pending_come_first_and_ten_are_the_most(bench: MakeBench) -> None:
    made = bench()
    for name in ("a", "b", "c"):
        root = made.project(name)
        (root / "x.py").write_text("".join(f"# TODO: {name} {n}\n" for n in range(8)))
    await made.spec("a", "S1-a", modifies=["y"])
    await made.spec("b", "S1-b", modifies=["y"])
    await made.spec("b", "S2-b", modifies=["y"])
    await made.cycle()
    assert [len(made.generated(name)) for name in ("a", "b", "c")] == [2, 0, 8]


async def test_specs_of_two_projects_with_one_title_get_along(bench: MakeBench) -> None:
    made = bench()
    for name in ("a", "b"):
        (made.project(name) / "x.py").write_text("# TODO: same\n")
    await made.cycle()
    assert made.generated() == ["G1-01-same", "G1-01-same@b"]
    for task in made.generated():
        made.set(task, status="deadletter")
    plan = {row["project"]: row for row in (await made.factory.plan())["projects"]}
    assert plan["a"]["allowance"] == plan["b"]["allowance"] == 10


async def test_specs_go_where_the_projects_own_are(bench: MakeBench) -> None:
    made = bench()
    remark(made, "one", specs_dir="shop/specs")
    await made.cycle()
    [task] = made.tasks()
    assert task.spec_file == str((made.home / "projects/shop/specs/G1-01-one.md").resolve())


async def test_a_command_that_fails_hangs_or_floods_is_an_event(bench: MakeBench) -> None:
    for argv, said in (
        ([], "no program is set"),
        (["/no/such/program"], "cannot be run"),
        (["sh", "-c", "exit 3"], "exit code 3"),
        (["sh", "-c", "sleep 60 & sleep 60"], "took more than"),
        (["yes"], "wrote more than"),
        (["sh", "-c", "cat > /dev/null"], None),
    ):
        made = bench(generator="command", command={"argv": argv, "timeout": 1})
        made.project("shop")
        [done] = await made.factory.run_once()
        assert said is None or said in done["failed"]
        shutil.rmtree(made.home / "projects")
    assert made.tasks() == []


async def test_a_cycle_has_an_end(bench: MakeBench) -> None:
    made = bench(generator="command", step_limit=0.3, command={"argv": ["sleep", "60"]})
    made.project("shop")
    made.project("other")
    done = await made.cycle()
    assert ["0.3 s" in one["failed"] for one in done] == [True]


def test_drafts_say_why_in_a_file_beside_them(tmp_path: Path) -> None:
    from dispatch_controller.factory.drafts import REJECTED, Draft, Drafts

    drafts = Drafts(tmp_path)
    drafts.save(Draft("G1-01-x", "shop", REJECTED, "too vague", "openai", 1, "now"), "text")
    assert json.loads((tmp_path / "shop" / "G1-01-x.json").read_text())["reason"] == "too vague"
