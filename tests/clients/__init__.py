"""Clients that nobody here wrote, against the whole stack: `python -m tests.clients` (make test-clients)."""
