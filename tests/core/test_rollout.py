"""A new wrapper proves itself on one node before the others get it."""

from __future__ import annotations

from dispatch_controller.core.rollout import Rollout, choose_canary, start_failed, task_done


def test_the_first_release_goes_everywhere() -> None:
    rollout = choose_canary(Rollout("new", None), ["a", "b"])
    assert (rollout.default, rollout.canary) == ("new", None)
    assert task_done(rollout, "new").good == "new"


def test_a_later_release_goes_to_one_node_first() -> None:
    rollout = choose_canary(Rollout("new", "old"), ["b", "a"])
    assert (rollout.default, rollout.canary) == ("old", "a")


def test_its_first_good_task_brings_it_to_all() -> None:
    rollout = task_done(choose_canary(Rollout("new", "old"), ["a"]), "new")
    assert (rollout.default, rollout.canary, rollout.good) == ("new", None, "new")


def test_a_good_task_of_the_old_release_proves_nothing() -> None:
    rollout = choose_canary(Rollout("new", "old"), ["a"])
    assert task_done(rollout, "old") == rollout


def test_two_failed_starts_on_the_canary_take_it_back() -> None:
    rollout = choose_canary(Rollout("new", "old"), ["a", "b"])
    once = start_failed(rollout, "a")
    assert (once.canary, once.bad) == ("a", frozenset())
    twice = start_failed(once, "a")
    assert (twice.default, twice.canary, twice.bad) == ("old", None, frozenset({"new"}))
    assert choose_canary(twice, ["a", "b"]).canary is None


def test_failed_starts_elsewhere_do_not_count() -> None:
    rollout = choose_canary(Rollout("new", "old"), ["a", "b"])
    assert start_failed(start_failed(rollout, "b"), "b") == rollout


def test_a_canary_that_is_gone_is_replaced() -> None:
    rollout = choose_canary(Rollout("new", "old"), ["a", "b"])
    assert choose_canary(start_failed(rollout, "a"), ["b"]) == Rollout("new", "old", canary="b")


def test_what_a_release_taken_back_had_begun_and_ends_well_does_not_bring_it_again() -> None:
    rollout = choose_canary(Rollout("new", "old"), ["a"])
    twice = start_failed(start_failed(rollout, "a"), "a")
    assert task_done(twice, "new") == twice
