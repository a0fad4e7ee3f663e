"""/api/v1/factory."""

from __future__ import annotations

import json

import pytest

from tests.web.serving import Serving


@pytest.fixture
def shop(door: Serving) -> Serving:
    """A project with two gaps."""
    home = door.context.settings.home
    (home / "projects" / "shop").mkdir(parents=True)
    (home / "projects" / "shop" / "a.py").write_text("# TODO: one\n# TODO: two\n")
    (home / "projects.json").write_text(json.dumps({"shop": {"repo_local": "shop"}}))
    return door


async def test_the_plan_says_what_and_why(shop: Serving) -> None:
    plan = await shop.data("factory")
    assert plan["enabled"] is True
    [row] = plan["projects"]
    assert (row["project"], row["generator"], row["allowance"]) == ("shop", "gaps", 20)
    assert [step["wanted"] for step in row["steps"]] == [0, 10]
    assert await shop.data("factory", project="other") == {**plan, "projects": []}


async def test_a_cycle_is_run_and_drafts_are_approved_and_dropped(shop: Serving) -> None:
    answer = await shop.post("/api/v1/factory/run", dry_run=True)
    assert answer.json()["data"][0]["drafts"] == ["G1-01-one", "G1-02-two"]
    drafts = await shop.data("factory/drafts", project="shop")
    assert [(draft["id"], draft["state"]) for draft in drafts] == [
        ("G1-01-one", "held"), ("G1-02-two", "held"),
    ]  # fmt: skip
    assert "# TODO" not in drafts[0]["id"]
    answer = await shop.post("/api/v1/factory/drafts/shop/G1-01-one/approve")
    assert answer.json() == {"ok": True, "data": {"task_id": "G1-01-one"}}
    assert shop.row("G1-01-one")["status"] == "pending"
    answer = await shop.post("/api/v1/factory/drafts/shop/G1-02-two/drop")
    assert answer.status_code == 200
    assert await shop.data("factory/drafts") == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("run", {"project": "nobody"}, 404),
        ("run", {"project": "../x"}, 422),
        ("run", {"dry_run": "perhaps"}, 422),
        ("drafts/shop/G1-01-one/approve", {}, 404),
        ("drafts/shop/G1-01-one/drop", {}, 404),
        ("drafts/shop/..%2fx/drop", {}, 404),
        ("drafts/shop/a b/drop", {}, 422),
        ("drafts/.shop/a/approve", {}, 422),
    ],
)
async def test_what_cannot_be_is_refused(
    shop: Serving, path: str, body: dict[str, object], status: int
) -> None:
    answer = await shop.http.post(f"/api/v1/factory/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["ok"] is False


async def test_a_draft_that_is_no_spec_is_a_conflict(shop: Serving) -> None:
    await shop.post("/api/v1/factory/run", dry_run=True)
    draft = shop.context.settings.home / "drafts" / "shop" / "G1-01-one.md"
    draft.write_text("no spec")
    answer = await shop.post("/api/v1/factory/drafts/shop/G1-01-one/approve")
    assert answer.status_code == 409
    assert str(draft) in answer.json()["error"]["message"]
