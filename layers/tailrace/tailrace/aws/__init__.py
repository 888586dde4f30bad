"""What the library needs of AWS besides the table: credentials, signatures, secrets, HTTP sessions, an event loop."""
