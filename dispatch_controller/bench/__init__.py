"""Measurements that a user can repeat: what the controller costs, beside what others cost."""

from __future__ import annotations

from dispatch_controller.bench.run import MEASUREMENTS, run

__all__ = ["MEASUREMENTS", "run"]
