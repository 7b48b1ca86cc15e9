"""`pd-local serve`: OpenAI's API on the device's loopback, answered by `HybridClient`; see docs/local-server.md."""
