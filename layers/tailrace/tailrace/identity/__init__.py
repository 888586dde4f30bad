"""Who is asking: bearer tokens, IAM, or a check of your own."""
