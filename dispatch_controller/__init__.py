"""The dispatcher: one Trio process that leases Markdown task specs to coding agents."""

from importlib.metadata import version

__version__ = version("dispatch-controller")
