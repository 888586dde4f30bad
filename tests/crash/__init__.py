"""kill -9 of the server in the middle of replies, again and again, and what its readers make of it."""
