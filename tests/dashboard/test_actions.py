"""What changes something asks first, and says what came of it."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from dispatch_controller.loops.reaper.endings import finish_endings
from dispatch_controller.store import reputation
from tests.dashboard.conftest import Open
from tests.dashboard.site import Site


def confirm(page: Page, button: str, verb: str | None = None) -> None:
    """Press a button and agree."""
    page.get_by_role("button", name=button, exact=True).first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=verb or button).click()
    expect(dialog).to_be_hidden()


def test_a_failed_task_is_retried(here: Site, visit: Open) -> None:
    here.run("broken")
    here.end("broken", "exit code 1", cause="task")
    page = visit("/tasks/broken")
    confirm(page, "Retry")
    expect(page.locator("#facts")).to_contain_text("pending")
    expect(page.locator("#told")).to_have_text("Retry: done.")
    assert here.door.row("broken")["status"] == "pending"
    assert here.door.event_types("broken")[-1] == "operator_retry"


def test_a_pending_task_is_cancelled(here: Site, visit: Open) -> None:
    here.add_tasks("unwanted")
    page = visit("/tasks/unwanted")
    confirm(page, "Cancel", "Cancel the task")
    expect(page.locator("#facts")).to_contain_text("deadletter")
    assert here.door.row("unwanted")["status"] == "deadletter"


def test_a_running_task_is_ended_on_its_node(here: Site, visit: Open) -> None:
    here.run("busy")
    page = visit("/tasks/busy")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_contain_text("Its process on mini is ended")
    page.get_by_role("dialog").get_by_role("button", name="Cancel the task").click()
    expect(page.locator("#told")).to_have_text("Cancel the task: done.")
    expect(page.locator("#facts")).to_contain_text("is being ended: cancelled by the operator")
    context, recorder = here.door.context, here.door.scheduling._recorder
    here.call(finish_endings, context, recorder)
    assert here.door.machines.nodes["mini"].tasks["shop", "busy"].killed


def test_who_does_not_agree_changes_nothing(here: Site, visit: Open) -> None:
    here.add_tasks("kept")
    before = here.door.dump()
    page = visit("/tasks/kept")
    for leave in ("Leave it", "Escape"):
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Leave it")).to_be_focused()
        if leave == "Escape":
            page.keyboard.press(leave)
        else:
            page.get_by_role("button", name=leave).click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    assert here.door.dump() == before


def test_what_cannot_be_done_says_why(here: Site, visit: Open) -> None:
    visit.expected += ["net::ERR_FAILED", "409"]
    here.add_tasks("gone")
    page = visit("/tasks/gone")
    page.route("**/cancel", lambda route: route.abort())
    confirm(page, "Cancel", "Cancel the task")
    expect(page.locator("#told")).to_contain_text("does not answer")
    page.unroute("**/cancel")
    page.get_by_role("button", name="Cancel").click()
    here.start()
    here.end("gone")  # while the question stands
    page.get_by_role("dialog").get_by_role("button", name="Cancel the task").click()
    expect(page.locator("#told")).to_have_text("gone is completed: it has ended already")


def test_a_node_is_disabled_enabled_and_let_out_of_quarantine(here: Site, visit: Open) -> None:
    context = here.door.context

    async def quarantine() -> bool:
        return await context.store.write(
            reputation.quarantine, context.clock.wall(), "mini", "reputation 40, below 60"
        )

    here.call(quarantine)
    page = visit("/nodes")
    card = page.locator("#node-mini")
    expect(card).to_contain_text("in quarantine: reputation 40, below 60")
    confirm(page, "Lift the quarantine")
    expect(card).to_contain_text("answers")
    confirm(page, "Disable")
    expect(card).to_contain_text("disabled")
    confirm(page, "Enable")
    expect(card).to_contain_text("answers")
