"""Tailrace beside what people use instead: ``make bench-peers``."""
