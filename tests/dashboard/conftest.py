"""A real Chromium in front of a real controller; whatever it complains of fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.dashboard.site import Site, site

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 10_000
"""Milliseconds for what has no promise of its own."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for the folder, which runs in a process of its own (Makefile): while Playwright lives,
    its event loop runs in this thread, and other tests of Trio cannot."""
    if not shutil.which(CHROMIUM):
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing: tools/system-packages.sh installs it")
        pytest.skip(f"{CHROMIUM} is missing: tools/system-packages.sh installs it")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A controller bound to loopback, with one node that answers: `mini`."""
    with site(tmp_path) as running:
        running.add_node("mini")
        yield running


@pytest.fixture
def visit(browser: Browser, here: Site) -> Iterator[Open]:
    """Opens pages of `here`."""
    with Open(browser, here.url) as open_page:
        yield open_page


class Open:
    """Opens pages; at the end none may have had an error or have asked another host."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._contexts: list[Any] = []
        self.complaints: list[str] = []
        self.expected: list[str] = []
        """Parts of complaints that a test provokes."""

    def __enter__(self) -> Open:
        return self

    def __call__(self, path: str = "/", **options: object) -> Page:
        context = self._browser.new_context(**options)  # type: ignore[arg-type]
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        # Before any script of the page: what the policy stops is told even without a console.
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " (event) => console.error('policy', event.violatedDirective, event.blockedURI))"
        )
        page.on("console", lambda told: self._console(told.type, told.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))
        page.goto(self._url + path)
        return page

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith(f"{self._url}/"):
            self.complaints.append(f"request to another host: {url}")

    def __exit__(self, kind: object, *_: object) -> None:
        for context in self._contexts:
            context.close()
        if kind is None:
            told = self.complaints
            assert [one for one in told if not any(part in one for part in self.expected)] == []
