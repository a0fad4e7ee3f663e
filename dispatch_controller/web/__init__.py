"""The door: HTTP for workers, programs and people (docs/api.md)."""
