"""The table of tasks: filters, pages, and the way to one task."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from tests.dashboard import sample
from tests.dashboard.conftest import Open
from tests.dashboard.site import Site


def rows(page: Page) -> list[str]:
    return page.locator("tbody td.first").all_inner_texts()


def test_tasks_are_filtered_by_state_project_node_and_text(here: Site, visit: Open) -> None:
    here.run("shop-1", "shop-2")
    here.add_tasks("docs-1", project="docs")
    here.end("shop-2", "no space left on device", cause="node")
    page = visit("/tasks")
    assert rows(page) == ["docs-1", "shop-1", "shop-2"]
    page.get_by_role("list", name="Tasks by state").get_by_role("link", name="failed").click()
    expect(page.locator("#total")).to_have_text("1 to 1 of 1")
    assert rows(page) == ["shop-2"]
    page.get_by_label("Id, error or spec file", exact=True).fill("space left")
    page.get_by_role("button", name="Filter").click()
    assert rows(page) == ["shop-2"]
    assert parse_qs(urlsplit(page.url).query)["status"] == ["failed"]
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Project").fill("docs")
    page.get_by_role("button", name="Filter").click()
    assert rows(page) == ["docs-1"]
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Node").fill("mini")
    page.get_by_role("button", name="Filter").click()
    assert rows(page) == ["shop-1", "shop-2"]
    page.get_by_label("Find tasks").fill("nothing is called this")
    page.get_by_label("Find tasks").press("Enter")
    expect(page.locator("#total")).to_have_text("No task fits.")


def test_pages_lead_through_all_tasks(here: Site, visit: Open) -> None:
    sample.fill(
        here.door.context.store.path, here.door.context.clock.wall(), project="big", tasks=120
    )
    page = visit("/tasks?project=big")
    seen = rows(page)
    while page.get_by_role("link", name="Next").count():
        page.get_by_role("link", name="Next").click()
        seen += rows(page)
    assert len(seen) == len(set(seen)) == 120
    assert seen == sorted(seen)
    page.get_by_role("link", name="Previous").click()
    expect(page.locator("#total")).to_have_text("51 to 100 of 120")


def test_a_pending_task_says_why_it_waits(here: Site, visit: Open) -> None:
    here.run("parent")
    here.add_tasks("child", depends_on=["parent"])
    page = visit("/tasks")
    expect(page.locator("tr[data-key=child]")).to_contain_text("waits for parent (running)")
    page.get_by_role("link", name="child").click()
    expect(page).to_have_title(re.compile("^child"))
    expect(page.locator("#reason")).to_have_text("waits for parent (running)")
    page.get_by_role("region", name="Depends on").get_by_role("link", name="parent").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("parent")
    expect(page.get_by_role("region", name="Needed by")).to_contain_text("child")


def test_the_overview_groups_what_waits_by_its_reason(here: Site, visit: Open) -> None:
    here.run("parent")
    here.add_tasks("child-1", "child-2", depends_on=["parent"])
    here.add_tasks("stranger", executor="codex")
    waits = visit("/").locator("#waits")
    expect(waits.locator("li").first).to_contain_text(re.compile(r"2\s+Waits for other tasks"))
    expect(waits).to_contain_text("No node runs its executor")
    expect(waits).to_contain_text("no node runs executor codex")


def test_what_is_not_there_has_a_page_of_its_own(here: Site, visit: Open) -> None:
    page = visit("/")
    for path in ("/tasks/none", "/projects/none"):
        answer = page.request.get(here.url + path)
        assert answer.status == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "there is no" in answer.text()
    assert page.request.get(f"{here.url}/tasks/%3Cscript%3E").status == 422
    assert page.request.get(f"{here.url}/tasks?page=0").status == 422
    assert page.request.get(f"{here.url}/static/..%2f..%2fauth.py").status == 404
