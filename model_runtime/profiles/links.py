"""Link profiles: what a network is like, from published or measured figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from model_runtime.profiles.provenance import Measurement, NotNegative, Positive, Text, Version, read_profile, shipped

_FOLDER = "links"


class LinkProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network between a device and its cloud. A byte takes `rtt_ms / 2`, plus jitter, plus its turn at the
    bandwidth, each way. Raises ValueError naming the field that is out of range."""

    name: Text
    #: The round trip of an empty link, in ms.
    rtt_ms: NotNegative
    #: Mean extra delay each way, in ms, exponentially distributed: between two messages the delay then differs by
    #: this much on average, which is how jitter is usually reported.
    jitter_ms: NotNegative = 0.0
    #: Kilobits per second from the device; None where bandwidth does not limit.
    up_kbps: Positive | None = None
    #: Kilobits per second to the device; None where bandwidth does not limit.
    down_kbps: Positive | None = None
    #: Share of packets lost. On a WebSocket a loss is a wait of a retransmission (RFC 6298), not a gap in the data.
    loss: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    #: Where the figures come from, for reports.
    source: str = ""
    #: Which figures are not exactly the source's, and why.
    approximate: tuple[Text, ...] = ()
    #: None: the figures were published by `source`.
    measured: Measurement | None = None
    version: Version = 1

    def __post_init__(self) -> None:
        # msgspec holds the bounds when it decodes a file; this holds them for a profile made in code.
        for name in ("rtt_ms", "jitter_ms"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"LinkProfile.{name} is {getattr(self, name)!r}; it must be 0 ms or more")
        for name in ("up_kbps", "down_kbps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"LinkProfile.{name} is {value!r}; it must be above 0 kbit/s, or None")
        if not 0 <= self.loss < 1:
            raise ValueError(f"LinkProfile.loss is {self.loss!r}; it must be a share of at least 0 and below 1")

    @property
    def emulated(self) -> bool:
        """Whether it adds anything to what is under it."""
        return bool(self.rtt_ms or self.jitter_ms or self.up_kbps or self.down_kbps or self.loss)

    def __str__(self) -> str:
        if not self.emulated:
            return f"{self.name}, nothing added"

        def speed(kbps: float | None) -> str:
            return "unlimited" if kbps is None else f"{kbps / 1000:g} Mbit/s"

        return (
            f"{self.name} (emulated): round trip {self.rtt_ms:g} ms + jitter {self.jitter_ms:g} ms each way, "
            f"{speed(self.down_kbps)} down, {speed(self.up_kbps)} up"
        )


def load_link(name_or_path: str | Path) -> LinkProfile:
    """A shipped link profile by its name (see `link_names`), or one from a JSON file.

    Raises ModelNotFoundError, and ModelFormatError naming the field that is wrong.
    """
    return read_profile(LinkProfile, _FOLDER, "link", name_or_path)


def link_names() -> list[str]:
    """The names of the link profiles that come with the package."""
    return shipped(_FOLDER)
