"""The OpenAI-compatible twin: any OpenAI client works against the same engine."""
