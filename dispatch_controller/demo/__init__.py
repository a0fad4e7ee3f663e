"""The demo: a controller on a temporary home, three small nodes, a dozen tasks, no set-up."""

from __future__ import annotations

from dispatch_controller.demo.show import run

__all__ = ["run"]
