"""Takes the pictures of docs/screenshots: `python -m tests.dashboard.screenshots [folder]`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

from tests.dashboard import sample
from tests.dashboard.conftest import CHROMIUM, FLAGS
from tests.dashboard.site import Site, site

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
DARK: dict[str, Any] = {**DESKTOP, "color_scheme": "dark"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 1,
}  # fmt: skip
LOG = """Reading src/export/report.py and its tests
The CSV writer quotes only the first column; test_export.py expects all of them.
Editing src/export/report.py
$ pytest -q tests/test_export.py
................................................ [100%]
48 passed in 3.21s
"""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, site(Path(home)) as running:
        sample.furnish(running, tasks=300)
        running.add_node("local")
        running.run("export-quotes", project="shop")
        _write(running, "export-quotes", LOG)
        failed = f"/tasks/{sample.first(running, 'failed')}"
        pictures = {
            "overview": ("/", DESKTOP),
            "overview-dark": ("/", DARK),
            "overview-phone": ("/", PHONE),
            "tasks": ("/tasks?project=docs", DESKTOP),
            "tasks-phone": ("/tasks?project=docs&status=failed", PHONE),
            "task-running": ("/tasks/export-quotes", DESKTOP),
            "task-failed-dark": (failed, DARK),
            "project-40": ("/projects/docs", DESKTOP),
            "project-300": ("/projects/shop", DESKTOP),
            "nodes": ("/nodes", DESKTOP),
            "health": ("/fleet-health", DESKTOP),
        }
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name, (path, options) in pictures.items():
                context = chromium.new_context(**options)
                page = context.new_page()
                page.goto(running.url + path)
                expect(page.locator("#link-state")).to_have_text("live")
                page.wait_for_load_state("load")
                if "log" in page.content() and path.endswith("quotes"):
                    expect(page.get_by_role("log")).to_contain_text("48 passed")
                page.screenshot(path=folder / f"{name}.png")
                context.close()
            chromium.close()


def _write(running: Site, task_id: str, text: str) -> None:
    for machine in running.door.machines.nodes.values():
        task = machine.tasks.get(("shop", task_id))
        if task is not None:
            task.plan = replace(task.plan, log=text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
