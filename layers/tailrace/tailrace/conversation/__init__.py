"""What is said: conversations, their messages and owners, and what a start asks a provider."""
