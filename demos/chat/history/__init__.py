"""Conversations on disk: one SQLite file, safe for several windows and processes at once."""
