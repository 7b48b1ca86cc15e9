"""What travels, in bytes, and what a lost packet costs. Figures of the protocol, for forecasts and simulation alike."""

from __future__ import annotations

#: With WebSocket, TLS and TCP/IP headers: a request without its prompt, a prompt token (a MessagePack integer of a
#: vocabulary beyond 65,536: three or five), a message with one token.
REQUEST_BYTES, PROMPT_TOKEN_BYTES, TOKEN_BYTES = 400, 4, 110
#: Seconds that a lost packet waits for its retransmission, beyond a round trip: Linux' least (RFC 6298 says 1 s).
LEAST_TIMEOUT = 0.2
