"""A model of the log's protocol, small enough to look at all of it (docs/log.md)."""
