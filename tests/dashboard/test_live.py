"""Pages that stay true by themselves."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.dashboard.conftest import Open
from tests.dashboard.site import Site

SECOND = 1000
"""What http.md and the issue promise for a change, in milliseconds."""


def test_a_change_is_on_the_overview_within_a_second(here: Site, visit: Open) -> None:
    page = visit("/")
    expect(page.locator("#link-state")).to_have_text("live")
    here.add_tasks("one")
    expect(page.locator("[data-count=pending]")).to_have_text("1", timeout=SECOND)
    here.start()
    expect(page.locator("#running")).to_contain_text("one", timeout=SECOND)
    here.end("one", "gate verify: 3 failed", cause="task")
    expect(page.locator("#failed tr", has_text="one")).to_contain_text(
        re.compile(r"failed\s+the task's\s+gate verify: 3 failed"), timeout=SECOND
    )


def test_a_change_is_in_the_table_and_on_the_tasks_page_within_a_second(
    here: Site, visit: Open
) -> None:
    table, task = visit("/tasks"), None
    expect(table.locator("#link-state")).to_have_text("live")
    here.run("two")
    row = table.locator("tr[data-key=two]")
    expect(row).to_contain_text("running", timeout=SECOND)
    task = visit("/tasks/two")
    expect(task.locator("#link-state")).to_have_text("live")
    here.end("two", gates={"exit": "passed"})
    expect(row).to_contain_text("completed", timeout=SECOND)
    expect(task.locator("#facts")).to_contain_text("completed", timeout=SECOND)
    expect(task.locator("#attempts")).to_contain_text(re.compile(r"exit\s+passed"), timeout=SECOND)
    expect(task.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_page_that_lost_the_controller_says_so_and_catches_up(here: Site, visit: Open) -> None:
    visit.expected.append("503")
    page = visit("/tasks")
    expect(page.locator("#link-state")).to_have_text("live")
    page.evaluate("window.stayed = true")
    page.route("**/api/v1/stream", lambda route: route.fulfill(status=503, body="{}"))
    page.evaluate(
        "for (const hidden of [true, false]) {"
        " Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    expect(page.locator("#link-state")).to_have_text("not connected")
    here.add_tasks("missed")
    page.unroute("**/api/v1/stream")
    expect(page.locator("#link-state")).to_have_text("live")
    expect(page.locator("tr[data-key=missed]")).to_be_visible()
    assert page.evaluate("window.stayed") is True


def test_a_tab_that_nobody_looks_at_holds_no_connection(here: Site, visit: Open) -> None:
    page = visit("/tasks")
    expect(page.locator("#link-state")).to_have_text("live")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/api/v1/stream")):
        page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange'))"
        )


def test_focus_and_what_is_typed_survive_a_change(here: Site, visit: Open) -> None:
    here.add_tasks("one", "two")
    page = visit("/tasks")
    expect(page.locator("#link-state")).to_have_text("live")
    page.locator("#f-project").fill("sh")
    page.locator("tr[data-key=two] a.id").focus()
    here.add_tasks("between")
    expect(page.locator("tr[data-key=between]")).to_be_visible()
    assert page.evaluate("document.activeElement.textContent") == "two"
    assert page.locator("#f-project").input_value() == "sh"
