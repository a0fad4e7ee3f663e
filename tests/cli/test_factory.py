"""The commands of the factory, against answers as the controller gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.controller import FakeController, NotFound

PLAN = {
    "enabled": False,
    "pending": 3,
    "min_pending": 80,
    "projects": [
        {
            "project": "shop", "generator": "gaps", "dry_run": True, "tasks": {"pending": 3},
            "made": 2, "allowance": 20, "failure_rate": 0.0,
            "steps": [
                {"step": "check_and_iterate_projects", "wanted": 0, "why": "3 tasks"},
                {"step": "auto_generate_specs", "wanted": 10, "why": "3 of 80 tasks pending"},
            ],
        }
    ],
    "research": {"sources": ["news"], "due": None},
    "spent": {"anthropic": {"tokens": 900, "cost": 0.5}, "openai": {"tokens": 0, "cost": 0.0}},
}  # fmt: skip
DRAFT = {
    "id": "G1-01-one", "project": "shop", "state": "held", "reason": "waits for approval",
    "generator": "gaps", "generation": 1, "at": "2026-01-01T00:00:00+00:00", "evidence": [],
    "file": "/home/drafts/shop/G1-01-one.md", "text": "",
}  # fmt: skip
DONE = {
    "step": "auto_generate_specs", "project": "shop", "generator": "gaps", "why": "few",
    "registered": ["G1-01-one"], "drafts": [], "rejected": ["G1-02-rejected"], "repeated": [],
    "failed": None, "new": None,
}  # fmt: skip


@pytest.fixture
def answers(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the controller answers, by method and path; an exception is raised."""
    given: dict[str, Any] = {
        "GET factory": PLAN,
        "GET factory/drafts": [DRAFT],
        "POST factory/run": [DONE],
        "POST factory/drafts/shop/G1-01-one/approve": {"task_id": "G1-01-one"},
        "POST factory/drafts/shop/G1-01-one/drop": {"id": "G1-01-one"},
    }

    def answer(method: str, target: str, body: object) -> object:
        found = given.get(f"{method} {target.removeprefix('/api/v1/').partition('?')[0]}")
        if found is None:
            raise NotFound(f"nothing at {target}")
        return found

    monkeypatch.setattr(controller, "answer", answer)
    return given


def test_the_plan_is_shown(answers: dict[str, Any], run: Run) -> None:
    assert json.loads(run("factory", "plan", "--json").out) == PLAN
    out = run("factory", "plan").out
    assert "loop off" in out
    assert "gaps (dry run)" in out
    assert "3 of 80 tasks pending" in out
    assert "research: news; due with the next cycle" in out
    assert "anthropic: 900 tokens, cost 0.5" in out
    assert "openai:" not in out


def test_a_run_tells_what_it_made_and_fails_with_its_generator(
    controller: FakeController, answers: dict[str, Any], run: Run
) -> None:
    result = run("factory", "run", "--project", "shop", "--dry-run")
    assert (result.code, controller.requests[-1][2]) == (0, {"project": "shop", "dry_run": True})
    assert result.out == "shop: G1-01-one: registered\nshop: G1-02-rejected: rejected\n"
    answers["POST factory/run"] = [{**DONE, "failed": "no network", "registered": []}]
    result = run("factory", "run")
    assert (result.code, controller.requests[-1][2]) == (1, {"project": None, "dry_run": None})
    assert "no network" in result.err
    answers["POST factory/run"] = []
    assert "nothing to do" in run("factory", "run").out


def test_drafts_are_listed_approved_and_dropped(answers: dict[str, Any], run: Run) -> None:
    assert json.loads(run("factory", "drafts", "--json").out) == [DRAFT]
    assert "waits for approval" in run("factory", "drafts").out
    assert run("factory", "approve", "G1-01-one").out == "G1-01-one: task G1-01-one\n"
    result = run("factory", "drop", "G1-01-one", "G9-none", "--json")
    assert result.code == 1
    assert [one["ok"] for one in json.loads(result.out)] == [True, False]


def test_a_draft_of_two_projects_has_to_be_named_with_its_own(
    answers: dict[str, Any], run: Run
) -> None:
    answers["GET factory/drafts"] = [DRAFT, {**DRAFT, "project": "barn"}]
    result = run("factory", "approve", "G1-01-one")
    assert result.code == 1
    assert "--project shop or barn" in result.err
    assert run("factory", "approve", "G1-01-one", "--project", "shop").code == 0


def test_a_plan_for_a_project_that_nobody_knows_is_refused(
    answers: dict[str, Any], run: Run
) -> None:
    answers["GET factory"] = {**PLAN, "projects": []}
    result = run("factory", "plan", "--project", "shpo")
    assert result.code == 1
    assert result.err == "there is no project shpo\n"
