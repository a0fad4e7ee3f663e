"""Beyond loopback a browser trades the token for a session."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from dispatch_controller.settings import Settings
from dispatch_controller.web.sessions import LIFETIME, Sessions
from tests.dashboard.axe import serious
from tests.dashboard.conftest import Open
from tests.dashboard.site import Site, site

TOKEN = "correct-horse"
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, host="0.0.0.0", api_token=TOKEN) as running:
        yield running


@pytest.fixture
def http(guarded: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        yield client


def log_in(client: httpx.Client, token: str = TOKEN) -> httpx.Response:
    return client.post("/login", json={"token": token}, headers={"Origin": str(client.base_url)})


def test_a_browser_logs_in_and_out(browser: Browser, guarded: Site) -> None:
    with Open(browser, guarded.url) as visit:
        visit.expected.append("401")
        page = visit("/tasks?status=failed")
        expect(page).to_have_url(re.compile("/login"))
        assert serious(page) == []
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not this controller's token.")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{guarded.url}/tasks?status=failed")
        expect(page.locator("#link-state")).to_have_text("live")
        assert page.evaluate("document.cookie") == ""
        cookie = page.context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        page.goto(f"{guarded.url}/login?next=//example.com/")
        expect(page).to_have_url(f"{guarded.url}/")
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(re.compile("/login"))
        page.goto(f"{guarded.url}/nodes")
        expect(page).to_have_url(re.compile("/login"))


def test_without_a_session_only_the_entrance_is_open(http: httpx.Client) -> None:
    asked = http.get("/tasks?q=a&node=b", headers=HTML)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/login?next=%2Ftasks%3Fq%3Da%26node%3Db"
    for path in ("/", "/tasks", "/api/v1/tasks", "/api/v1/stream", "/metrics", "/openapi.json"):
        assert http.get(path).status_code == 401
        assert http.get(path, headers={**HTML, "Authorization": "Bearer no"}).status_code == 401
    page = http.get("/login")
    assert page.status_code == 200
    for asset in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        answer = http.get(asset)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert http.post("/static/style.css", json={}).status_code == 401
    assert http.get("/login/").status_code == 401


def test_a_session_opens_pages_api_and_state_changes(http: httpx.Client) -> None:
    assert log_in(http, "wrong").status_code == 401
    assert log_in(http).status_code == 200
    for path in ("/", "/tasks", "/api/v1/tasks", "/v1/status"):
        assert http.get(path).status_code == 200
    with http.stream("GET", "/api/v1/stream") as stream:
        assert stream.status_code == 200
    origin = str(http.base_url).rstrip("/")
    assert (
        http.post("/api/v1/tasks/a/retry", json={}, headers={"Origin": origin}).status_code == 404
    )


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1:1"])
def test_a_session_changes_nothing_for_another_origin(
    http: httpx.Client, origin: str | None
) -> None:
    log_in(http)
    headers = {} if origin is None else {"Origin": origin}
    for path in ("/api/v1/tasks/a/retry", "/api/v1/nodes/a/disable", "/logout", "/login"):
        answer = http.post(path, json={"token": TOKEN}, headers=headers)
        assert answer.status_code in (401, 403), path
        assert "set-cookie" not in answer.headers


def test_a_form_of_another_page_cannot_change_anything(http: httpx.Client) -> None:
    log_in(http)
    origin = str(http.base_url).rstrip("/")
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        answer = http.post(
            "/api/v1/nodes/a/disable", content="{}",
            headers={"Origin": origin, "Content-Type": kind},
        )  # fmt: skip
        assert answer.status_code == 415


def test_a_session_that_was_ended_is_worth_nothing(http: httpx.Client) -> None:
    log_in(http)
    kept = dict(http.cookies)
    origin = {"Origin": str(http.base_url).rstrip("/")}
    assert http.post("/logout", json={}, headers=origin).status_code == 200
    http.cookies.clear()
    http.cookies.update(kept)
    assert http.get("/api/v1/tasks").status_code == 401


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def sessions(clock: Clock, token: str = TOKEN) -> Sessions:
    return Sessions(
        Settings.model_validate({"home": "/h", "host": "0.0.0.0", "api_token": token}), clock
    )


def test_a_session_outlives_a_restart_but_neither_its_time_nor_its_token() -> None:
    clock = Clock()
    cookie = sessions(clock).open().partition(";")[0]
    assert sessions(clock).valid(cookie)
    assert sessions(clock).valid(f"other=1; {cookie}")
    assert not sessions(clock, "another-token").valid(cookie)
    clock.now += LIFETIME + 1
    assert not sessions(clock).valid(cookie)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1], lambda value: value + "0", lambda value: "9" + value,
        lambda value: value.replace(".", "", 1), lambda value: "", lambda value: "a.b.c",
        lambda value: value.upper(), lambda value: "é" + value,
    ],
)  # fmt: skip
def test_a_session_that_was_tampered_with_is_none(change: Callable[[str], str]) -> None:
    clock = Clock()
    name, _, value = sessions(clock).open().partition(";")[0].partition("=")
    assert not sessions(clock).valid(f"{name}={change(value)}")


def test_the_cookie_is_for_this_site_and_for_tls_where_there_is_tls(tmp_path: Path) -> None:
    header = sessions(Clock()).open()
    assert "HttpOnly" in header
    assert "SameSite=Strict" in header
    assert "Secure" not in header
    files = {name: tmp_path / name for name in ("tls_certificate", "tls_key")}
    for file in files.values():
        file.write_text("x")
    settings = Settings.model_validate(
        {"home": "/h", "host": "0.0.0.0", "api_token": TOKEN, **files}
    )
    assert Sessions(settings, Clock()).open().endswith("; Secure")
