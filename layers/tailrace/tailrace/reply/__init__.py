"""One assistant message while it is written: relayed, logged, ended, followed."""
