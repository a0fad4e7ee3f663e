"""A worker of our own: serves a node by HTTP, polling or listening (docs/workers.md)."""
