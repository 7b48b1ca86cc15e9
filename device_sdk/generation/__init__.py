"""One answer as a sans-I/O state machine: inputs and `now` in, commands out. No clock, no thread, no socket.

The SDK drives it with a WebSocket and an engine thread; a simulator drives the very same code with virtual time.
"""
