"""Pages in a real Chromium, against the whole stack: `python -m tests.browser` (make test-browser)."""
