"""What both demonstrations emulate unless told otherwise: one model, Llama 8B in 4 bits, on a phone and in the cloud.

Faster hardware is emulated as well, but not by every machine: two cores read 500 tokens behind 3,000 with the bundled
model in the time that this GPU takes for an 8B model. A faster GPU's figures would be the machine's own there.
"""

from __future__ import annotations

DEVICE_PROFILE = "phone-snapdragon-8-elite-8b"
CLOUD_PROFILE = "datacentre-a40"
LINK = "5g"
#: Milliseconds per token shown: what that phone keeps up, at 77 ms per token of its own.
PACE_MS = 80.0
