"""The whole of it on one machine: `python -m local` (make run) and `python -m local.demo` (make demo)."""
