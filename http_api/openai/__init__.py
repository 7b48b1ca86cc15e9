"""OpenAI's API: what may be asked, how it is answered and refused. Knows nothing of what generates."""
