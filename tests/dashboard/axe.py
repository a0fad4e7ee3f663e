"""axe-core, as the package axe-playwright-python brings it: none of its own code is used."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from playwright.sync_api import Page

_SCRIPT = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


def serious(page: Page, rules: Sequence[str] = ()) -> list[tuple[str, str, list[str]]]:
    """Return the serious and critical findings: (rule, what it asks for, elements).

    `rules` names the only ones to look at; without them, all.
    """
    page.evaluate(_SCRIPT)
    options: dict[str, object] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    found = page.evaluate("(options) => axe.run(options)", options)
    return [
        (one["id"], one["help"], [node["html"] for node in one["nodes"]][:3])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
