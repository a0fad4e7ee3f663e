"""A task's log, followed live."""

from __future__ import annotations

from dataclasses import replace

from playwright.sync_api import expect

from tests.dashboard.conftest import Open
from tests.dashboard.site import Site


def write(here: Site, task_id: str, text: str) -> None:
    """Add to the log of a running task."""
    task = here.door.machines.nodes["mini"].tasks["shop", task_id]

    def add() -> None:
        task.plan = replace(task.plan, log=task.plan.log + text)

    here.do(add)


def test_a_log_that_grows_is_followed_to_its_end(here: Site, visit: Open) -> None:
    here.run("talker")
    page = visit("/tasks/talker")
    log = page.get_by_role("log")
    expect(log).to_have_text("working\n")
    write(here, "talker", "".join(f"line {n}\n" for n in range(200)))
    expect(log).to_contain_text("line 199")
    at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 40"
    assert log.evaluate(at_end)
    log.evaluate("log => { log.scrollTop = 0; }")
    expect(page.get_by_label("Follow")).not_to_be_checked()
    write(here, "talker", "after that\n")
    expect(log).to_contain_text("after that")
    assert log.evaluate("log => log.scrollTop") == 0
    page.get_by_label("Follow").check()
    assert log.evaluate(at_end)
    machine = here.door.machines.nodes["mini"]
    here.do(machine.finish, "shop", "talker")
    expect(page.locator("#log-state")).to_have_text("ended")


def test_colours_of_a_terminal_are_left_out(here: Site, visit: Open) -> None:
    here.run("painter")
    write(here, "painter", "\x1b[1;31mred\x1b[0m \x1b]0;title\x07and plain\n")
    expect(visit("/tasks/painter").get_by_role("log")).to_have_text("working\nred and plain\n")


def test_a_task_that_never_ran_has_no_log_yet_and_gets_one(here: Site, visit: Open) -> None:
    here.add_tasks("late")
    page = visit("/tasks/late")
    expect(page.locator("#log-state")).to_have_text("It has not run yet.")
    expect(page.locator("#link-state")).to_have_text("live")
    here.start()
    expect(page.get_by_role("log")).to_have_text("working\n")


def test_a_long_log_begins_near_its_end(here: Site, visit: Open) -> None:
    here.run("long")
    write(here, "long", "".join(f"{n:09d}\n" for n in range(50_000)))
    page = visit("/tasks/long")
    log = page.get_by_role("log")
    expect(log).to_contain_text("000049999")
    assert "000000001" not in log.inner_text()
    page.get_by_role("button", name="From the beginning").click()
    expect(log).to_contain_text("000000001")
    expect(log).to_contain_text("000049999")
