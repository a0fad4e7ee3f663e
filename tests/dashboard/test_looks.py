"""Readable by everybody: any width, light and dark, by keyboard alone, by a screen reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard import sample
from tests.dashboard.axe import serious
from tests.dashboard.conftest import Open
from tests.dashboard.site import Site, site

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DARK = {"color_scheme": "dark"}
PAGES = ("/", "/tasks", "/projects", "/projects/docs", "/nodes", "/fleet-health")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A controller with a history: nobody changes anything there."""
    with site(tmp_path_factory.mktemp("full")) as running:
        sample.furnish(running)
        yield running


@pytest.fixture
def look(browser: Browser, full: Site) -> Iterator[Open]:
    with Open(browser, full.url) as open_page:
        yield open_page


def every_page(full: Site) -> tuple[str, ...]:
    return (*PAGES, f"/tasks/{sample.first(full, 'failed')}")


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({}, ()),
        (DARK, ("color-contrast", "link-in-text-block")),
        (PHONE, ("target-size", "scrollable-region-focusable", "aria-required-children")),
    ],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing_serious(
    full: Site, look: Open, options: dict[str, Any], rules: tuple[str, ...]
) -> None:
    page = look("/", **options)
    for path in every_page(full):
        page.goto(full.url + path)
        expect(page.locator("#link-state")).to_have_text("live")
        assert serious(page, rules) == [], path


def test_no_page_scrolls_sideways_on_a_phone(full: Site, look: Open) -> None:
    page = look("/", **PHONE)
    for path in every_page(full):
        page.goto(full.url + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, path
        assert page.get_by_role("heading", level=1).is_visible()


def colours(page: Page) -> tuple[int, int]:
    """Return the brightness of the ground and of the text, 0 to 255."""

    def bright(css: str) -> int:
        text: str = page.evaluate(f"getComputedStyle(document.documentElement).{css}")
        return sum(int(part) for part in text.strip("rgb()").split(",")[:3]) // 3

    return bright("backgroundColor"), bright("color")


def test_light_and_dark_follow_the_system(look: Open) -> None:
    ground, ink = colours(look("/"))
    assert ground > 200 > 60 > ink
    ground, ink = colours(look("/", **DARK))
    assert ground < 60 < 200 < ink


def test_who_wants_no_motion_gets_none(look: Open) -> None:
    for wish, motion in (("no-preference", "changed"), ("reduce", "none")):
        page = look("/tasks", reduced_motion=wish)
        name = page.locator("tbody tr").first.evaluate(
            "row => { row.classList.add('changed'); return getComputedStyle(row).animationName; }"
        )
        assert name == motion


def test_times_are_relative_and_exact_in_their_titles(full: Site, look: Open) -> None:
    page = look("/tasks", timezone_id="Asia/Tokyo", locale="en-GB")
    first = page.locator("tbody time").first
    assert first.inner_text().endswith("ago")
    assert "JST" in (first.get_attribute("title") or "") or "GMT+9" in str(
        first.get_attribute("title")
    )


def press(page: Page, key: str, until: str, most: int = 80) -> None:
    """Press a key until what has the focus matches a selector."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate(f"document.activeElement.matches({until!r})"):
            return
    pytest.fail(f"{key} does not lead to {until}")


def outlined(page: Page) -> bool:
    style: str = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    return style != "none"


def test_everything_can_be_done_by_keyboard(here: Site, visit: Open) -> None:
    here.run("broken")
    here.end("broken", "exit code 1", cause="task")
    page = visit("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    press(page, "Shift+Tab", "#find")
    assert outlined(page)
    page.keyboard.type("broken")
    page.keyboard.press("Enter")
    expect(page.locator("#total")).to_have_text("1 to 1 of 1")
    press(page, "Tab", "tbody a.id")
    assert outlined(page)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{here.url}/tasks/broken")
    press(page, "Tab", "[data-key=retry]")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    press(page, "Tab", "#confirm-yes", 3)
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text("pending")


def test_the_drawing_is_read_by_keyboard_and_at_any_size(full: Site, look: Open) -> None:
    page = look("/projects/docs")
    drawing = page.locator("#graph")
    width = drawing.evaluate("svg => svg.getBoundingClientRect().width")
    page.get_by_role("button", name="Larger").click()
    assert drawing.evaluate("svg => svg.getBoundingClientRect().width") > width
    page.get_by_role("button", name="Fit").click()
    assert drawing.evaluate("svg => svg.getBoundingClientRect().right <= innerWidth")
    press(page, "Tab", "#graph a.node")
    assert "pointed" in (drawing.get_attribute("class") or "")
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(name.partition(",")[0])
