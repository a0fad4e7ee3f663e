"""Model generators against a scripted endpoint: what is right is registered, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch_controller.factory.endpoint import retry_after
from tests.factory.conftest import EPOCH, Bench, HandClock, MakeBench
from tests.factory.scripted import Reply, Scripted, serving

SPEC = """<spec>
---
title: "Take the discount off"
modifies: ["shop/cart.py"]
verify: "! grep -q TODO shop/cart.py"
evidence_key: "discount"
evidence: ["shop/cart.py:1: TODO"]
---

# Take the discount off

The total ignores the discount; subtract it.

## Acceptance

The total is right.
</spec>
"""
PROTOCOLS = [("anthropic", True), ("anthropic", False), ("openai", True), ("openai", False)]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as server:
        yield server


def good(
    name: str,
    stream: bool,
    text: str = SPEC,
    *,
    stop: bool = True,
    used: tuple[int, int] = (700, 200),
) -> Reply:
    """An answer as the protocol writes it; `stop` false: cut by its length."""
    if name == "anthropic":
        reason = "end_turn" if stop else "max_tokens"
        usage = {"input_tokens": used[0], "output_tokens": used[1]}
        if not stream:
            whole = {
                "type": "message", "content": [{"type": "text", "text": text}],
                "stop_reason": reason, "usage": usage,
            }  # fmt: skip
            return Reply(200, json.dumps(whole).encode(), {"content-type": "application/json"})
        return sse(
            {"type": "message_start", "message": {"usage": {**usage, "output_tokens": 1}}},
            {"type": "ping"},
            *(
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": piece}}
                for piece in pieces(text)
            ),
            {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
            {"type": "message_stop"},
        )
    finish = "stop" if stop else "length"
    usage = {"prompt_tokens": used[0], "completion_tokens": used[1]}
    if not stream:
        choice = {"message": {"content": text}, "finish_reason": finish}
        whole = {"choices": [choice], "usage": usage}
        return Reply(200, json.dumps(whole).encode(), {"content-type": "application/json"})
    return sse(
        *({"choices": [{"delta": {"content": piece}}]} for piece in pieces(text)),
        {"choices": [{"delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": usage},
        "[DONE]",
    )


def refusal(name: str, stream: bool) -> Reply:
    if name == "anthropic":
        usage = {"input_tokens": 10, "output_tokens": 5}
        if stream:
            delta = {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": usage}
            return sse({"type": "message_start", "message": {"usage": usage}}, delta)
        body = {"content": [], "stop_reason": "refusal", "usage": usage}
        return Reply(200, json.dumps(body).encode())
    if stream:
        return sse({"choices": [{"delta": {"refusal": "I cannot."}, "finish_reason": "stop"}]})
    choice = {"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}
    return Reply(200, json.dumps({"choices": [choice]}).encode())


def pieces(text: str) -> list[str]:
    return [text[n : n + 40] for n in range(0, len(text), 40)]


def sse(*events: Any) -> Reply:  # noqa: ANN401
    lines = [
        f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events
    ]
    return Reply(200, "".join(lines).encode(), {"content-type": "text/event-stream; charset=utf-8"})


def ask(
    make: MakeBench,
    server: Scripted,
    name: str = "anthropic",
    stream: bool = True,
    **more: Any,  # noqa: ANN401
) -> Bench:
    model = {"base_url": server.url, "model": "m-1", "stream": stream, **more}
    bench = make(generator=name, **{name: model})
    root = bench.project("shop")
    (root / "shop").mkdir(exist_ok=True)
    (root / "shop" / "cart.py").write_text("# TODO\n")
    return bench


def only(bench: Bench) -> dict[str, Any]:
    [event] = bench.events("factory_failed")
    return dict(event.details)


def clock(bench: Bench) -> HandClock:
    assert isinstance(bench.clock, HandClock)
    return bench.clock


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
async def test_a_good_answer_is_registered_with_its_marks(
    bench: MakeBench, server: Scripted, monkeypatch: pytest.MonkeyPatch, name: str, stream: bool
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k-a")
    monkeypatch.setenv("OPENAI_API_KEY", "k-o")
    made = ask(bench, server, name, stream)
    server.replies = [good(name, stream)]
    await made.cycle()
    assert made.generated() == ["G1-01-take-the-discount-off"]
    text = made.file("shop", "G1-01-take-the-discount-off")
    for line in (
        'generated_by: "' + name + '"', "generation: 1", 'evidence_key: "discount"',
        'evidence: ["shop/cart.py:1: TODO"]', 'project: "shop"',
    ):  # fmt: skip
        assert f"\n{line}\n" in text
    [request] = server.requests
    assert request.body["model"] == "m-1"
    assert request.body["stream"] is stream
    prompt = request.body["messages"][0]["content"]
    assert "shop/cart.py" in prompt
    if name == "anthropic":
        assert (request.path, request.headers["x-api-key"]) == ("/v1/messages", "k-a")
        assert request.headers["anthropic-version"]
    else:
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer k-o"
    assert (await made.factory.plan())["spent"][name]["tokens"] == 900


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
async def test_a_refusal_is_an_event(
    bench: MakeBench, server: Scripted, name: str, stream: bool
) -> None:
    made = ask(bench, server, name, stream)
    server.replies = [refusal(name, stream)]
    await made.cycle()
    assert "refused" in only(made)["reason"]
    assert made.tasks() == []
    server.replies = [good(name, stream)]
    clock(made).now += 60
    await made.cycle()
    assert len(made.generated()) == 1


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
async def test_prose_around_the_specs_is_passed_over(
    bench: MakeBench, server: Scripted, name: str, stream: bool
) -> None:
    made = ask(bench, server, name, stream)
    second = SPEC.replace("Take the discount off", "Say the total").replace(
        '"discount"', '"total"'
    ).replace(":1: TODO", ":1: the total")  # fmt: skip
    text = f"Sure! Here they are:\n\n{SPEC}\nAnd, as you asked:\n{second}\nHope this helps."
    server.replies = [good(name, stream, text)]
    await made.cycle()
    assert made.generated() == ["G1-01-take-the-discount-off", "G1-02-say-the-total"]
    assert "Hope this helps" not in made.file("shop", "G1-02-say-the-total")


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
async def test_of_half_an_answer_the_whole_specs_count(
    bench: MakeBench, server: Scripted, name: str, stream: bool
) -> None:
    made = ask(bench, server, name, stream)
    half = SPEC.replace("discount", "voucher").partition("## Acceptance")[0]
    server.replies = [good(name, stream, SPEC + half, stop=False)]
    await made.cycle()
    assert made.generated() == ["G1-01-take-the-discount-off"]
    [draft] = await made.factory.drafts()
    assert (draft["state"], draft["reason"]) == (
        "rejected", "the answer broke off inside this spec",
    )  # fmt: skip
    assert "voucher" in draft["text"]
    assert [e.details["draft"] for e in made.events("factory_rejected")] == [draft["id"]]


@pytest.mark.parametrize("name", ["anthropic", "openai"])
async def test_a_stream_that_breaks_off_is_paid_for_in_full(
    bench: MakeBench, server: Scripted, name: str
) -> None:
    made = ask(bench, server, name, True, max_tokens=1000)
    reply = good(name, True, SPEC + SPEC.replace("discount", "voucher"))
    reply.cut = len(reply.body) * 2 // 3
    server.replies = [reply]
    await made.cycle()
    assert made.generated() == ["G1-01-take-the-discount-off"]
    prompt = server.requests[0].body["messages"][0]["content"]
    spent = (await made.factory.plan())["spent"][name]["tokens"]
    assert spent == len(prompt.encode()) + 256 + 1000


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
@pytest.mark.parametrize("text", ["", "I looked, and all is well with this project.", "{}"])
async def test_an_answer_without_specs_is_an_event_and_the_next_cycle_tries_again(
    bench: MakeBench, server: Scripted, name: str, stream: bool, text: str
) -> None:
    made = ask(bench, server, name, stream)
    server.replies = [good(name, stream, text)]
    await made.cycle()
    assert "held no spec" in only(made)["reason"]
    clock(made).now += 60
    await made.cycle()
    assert len(server.requests) == 2


async def test_no_specs_is_an_answer_too(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server)
    server.replies = [good("anthropic", True, "no specs\n")]
    await made.cycle()
    clock(made).now += 60
    await made.cycle()
    assert len(server.requests) == 1
    assert made.events("factory_failed") == []
    clock(made).now += 3600
    await made.cycle()
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["anthropic", "openai"])
async def test_a_rate_limit_with_a_reset_is_respected(
    bench: MakeBench, server: Scripted, name: str
) -> None:
    made = ask(bench, server, name)
    server.replies = [
        Reply(429, b'{"error": {"message": "slow down"}}', {"retry-after": "1800"}),
        good(name, True),
    ]
    await made.cycle()
    assert "slow down" in only(made)["reason"]
    for _ in range(29):
        clock(made).now += 60
        await made.cycle()
    assert len(server.requests) == 1
    assert len(made.events("factory_failed")) == 1
    clock(made).now += 60
    await made.cycle()
    assert len(made.generated()) == 1
    assert (await made.factory.plan())["spent"][name]["tokens"] == 900


async def test_a_short_reset_is_waited_for(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server)
    server.replies = [Reply(429, b"", {"retry-after": "0"}), good("anthropic", True)]
    await made.cycle()
    assert len(server.requests) == 2
    assert len(made.generated()) == 1


async def test_a_rate_limit_without_a_reset_parks_the_generator(
    bench: MakeBench, server: Scripted
) -> None:
    made = ask(bench, server, attempts=1)
    made.project("other")
    server.replies = [Reply(429, b"")]
    await made.cycle()
    for _ in range(14):
        clock(made).now += 60
        await made.cycle()
    assert len(server.requests) == 1
    clock(made).now += 60
    await made.cycle()
    assert len(server.requests) == 2


def test_reset_times_are_read_in_every_form() -> None:
    for headers, seconds in (
        ({"retry-after": "30"}, 30.0),
        ({"x-ratelimit-reset-requests": "1m30s", "x-ratelimit-reset-tokens": "120ms"}, 90.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-09-21T13:06:40Z"}, None),
        ({"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ):
        at = retry_after(headers, EPOCH)
        if seconds is not None:
            assert at == EPOCH + seconds
        elif "anthropic-ratelimit-tokens-reset" not in headers:
            assert at is None


@pytest.mark.parametrize("status", [500, 529])
async def test_a_server_error_is_tried_again_and_costs_nothing(
    bench: MakeBench, server: Scripted, status: int
) -> None:
    made = ask(bench, server, attempts=2)
    server.replies = [Reply(status, b"oops")]
    await made.cycle()
    assert len(server.requests) == 2
    assert f"answered {status}: oops" in only(made)["reason"]
    assert (await made.factory.plan())["spent"]["anthropic"]["tokens"] == 0


async def test_a_wrong_key_is_not_tried_again(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server)
    server.replies = [Reply(401, b'{"error": {"message": "invalid x-api-key"}}')]
    await made.cycle()
    assert len(server.requests) == 1
    assert "invalid x-api-key" in only(made)["reason"]


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
@pytest.mark.parametrize("started", [True, False])
async def test_a_connection_that_hangs_ends_and_is_paid_for(
    bench: MakeBench, server: Scripted, name: str, stream: bool, started: bool
) -> None:
    made = ask(bench, server, name, stream, timeout=0.5, max_tokens=1000)
    reply = good(name, stream)
    server.replies = [Reply(200, reply.body[:60] if started else b"", reply.headers, hang=True)]
    await made.cycle()
    assert "did not end within 0.5 s" in only(made)["reason"]
    assert (await made.factory.plan())["spent"][name]["tokens"] > 1000


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
async def test_fifty_megabytes_are_not_taken(
    bench: MakeBench, server: Scripted, name: str, stream: bool
) -> None:
    made = ask(bench, server, name, stream)
    server.replies = [Reply(200, b"", good(name, stream).headers, endless=50)]
    await made.cycle()
    assert "larger than" in only(made)["reason"]
    assert server.sent < 50


@pytest.mark.parametrize(("name", "stream"), PROTOCOLS)
async def test_a_body_that_is_no_protocol_is_an_event(
    bench: MakeBench, server: Scripted, name: str, stream: bool
) -> None:
    made = ask(bench, server, name, stream)
    for number, body in enumerate(
        (b"<html>", b"[]", b'{"content": 5, "choices": "x"}', b"\xff"), 1
    ):
        server.replies = [Reply(200, body, {"content-type": "application/json"})]
        await made.factory.run_once()
        assert len(made.events("factory_failed")) == number
    assert made.tasks() == []


async def test_nobody_there_is_an_event_and_costs_nothing(
    bench: MakeBench, server: Scripted
) -> None:
    made = ask(bench, server, base_url="http://127.0.0.1:9", attempts=1)
    await made.cycle()
    assert "cannot be reached" in only(made)["reason"]
    assert (await made.factory.plan())["spent"]["anthropic"]["tokens"] == 0


async def test_the_token_budget_is_kept_exactly(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server, max_tokens=1000, daily_tokens=30_000, timeout=5)
    server.replies = [good("anthropic", True, "nothing", used=(4000, 1000))]
    for _ in range(20):
        await made.factory.run_once()
        made.restart()  # the budget outlives the process
    prompt = len(server.requests[0].body["messages"][0]["content"].encode())
    most = prompt + 256 + 1000
    calls = len(server.requests)
    assert calls * 5000 <= 30_000 < calls * 5000 + most
    assert "budget of anthropic" in str(made.events("factory_failed")[-1].details["reason"])
    clock(made).now += 86_400
    await made.factory.run_once()
    assert len(server.requests) == calls + 1


async def test_the_money_budget_is_kept_exactly(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server, max_tokens=1000, daily_cost=0.1, price_in=3, price_out=15)
    server.replies = [good("anthropic", True, "nothing", used=(2000, 1000))]
    for _ in range(10):
        await made.factory.run_once()
    cost = 2000 * 3e-6 + 1000 * 15e-6
    most = 1000 * 15e-6 + 3e-6 * (
        len(server.requests[0].body["messages"][0]["content"].encode()) + 256
    )
    assert len(server.requests) * cost <= 0.1 < len(server.requests) * cost + most


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('modifies: ["shop/cart.py"]\n', ""), "modifies is missing"),
        (('["shop/cart.py"]\nverify', '["../x"]\nverify'), "climbs out"),
        (('["shop/cart.py"]\nverify', '["."]\nverify'), "whole project"),
        (('evidence: ["shop/cart.py:1: TODO"]\n', ""), "evidence is missing"),
        (("shop/cart.py:1: TODO", "shop/none.py:1: TODO"), "no evidence can be found"),
        (("shop/cart.py:1: TODO", "../../../../etc/passwd:1: x"), "no evidence can be found"),
        (('title: "Take', 'priority: urgent\ntitle: "Take'), "priority"),
        (('title: "Take', 'depends_on: ["S77"]\ntitle: "Take'), "depends_on"),
        (('title: "Take', "title: &a "), "anchors"),
    ],
)
async def test_what_does_not_pass_is_a_draft_with_its_reason(
    bench: MakeBench, server: Scripted, change: tuple[str, str], reason: str
) -> None:
    made = ask(bench, server)
    assert change[0] in SPEC
    server.replies = [good("anthropic", True, SPEC.replace(*change))]
    await made.cycle()
    assert made.tasks() == []
    [draft] = await made.factory.drafts("shop")
    assert reason in draft["reason"]
    assert draft["state"] == "rejected"


async def test_the_same_evidence_is_not_taken_twice(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server)
    server.replies = [good("anthropic", True, SPEC + SPEC.replace('"discount"', '"another key"'))]
    await made.cycle()
    assert made.generated() == ["G1-01-take-the-discount-off"]
    made.restart()
    await made.factory.run_once()
    assert made.generated() == ["G1-01-take-the-discount-off"]
    assert len(made.events("factory_repeated")) == 3
    assert await made.factory.drafts() == []


async def test_the_prompt_can_be_changed(
    bench: MakeBench, server: Scripted, tmp_path: Path
) -> None:
    own = tmp_path / "own.md"
    made = bench(
        generator="openai", prompt_file=str(own), openai={"base_url": server.url, "model": "m"}
    )
    made.project("shop")
    server.replies = [good("openai", True, "no specs")]
    own.write_text("At most $wanted for $project, costs $$1.\n$context")
    await made.cycle()
    assert (
        server.requests[0]
        .body["messages"][0]["content"]
        .startswith("At most 10 for shop, costs $1.\n{")
    )
    own.write_text("$nothing")
    await made.factory.run_once()
    assert str(own) in only(made)["reason"]


async def test_no_model_is_asked_when_there_is_nothing_to_do(
    bench: MakeBench, server: Scripted
) -> None:
    made = ask(bench, server)
    server.replies = [good("anthropic", True)]
    for number in range(80):
        await made.spec("shop", f"S{number:02}-x")
    await made.cycle()
    assert server.requests == []


async def test_a_project_that_fails_is_left_alone(bench: MakeBench, server: Scripted) -> None:
    made = ask(bench, server)
    server.replies = [good("anthropic", True)]
    for number in range(20):
        status = "completed" if number < 9 else "deadletter"
        await made.spec("shop", f"S{number:02}-x", columns={"status": status})
    await made.cycle()
    assert server.requests == []
    made.set("S10-x", status="completed")
    await made.cycle()
    assert len(made.generated()) == 1
