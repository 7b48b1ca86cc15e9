"""API keys: hashed at rest, each with a name and limits of its own."""
