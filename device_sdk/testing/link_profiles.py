"""What a network is like, and when bytes that enter it come out. No I/O, no clock: callers say what time it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """An emulated network. A byte takes `rtt_ms / 2`, plus jitter, plus its turn at the bandwidth, each way."""

    name: str
    #: The round trip of an empty link, in ms.
    rtt_ms: float
    #: Mean extra delay each way, in ms, exponentially distributed: between two messages the delay then differs by
    #: this much on average, which is how jitter is usually reported.
    jitter_ms: float = 0.0
    #: Kilobits per second from the device; None where bandwidth does not limit.
    up_kbps: float | None = None
    #: Kilobits per second to the device; None where bandwidth does not limit.
    down_kbps: float | None = None
    #: Where the figures come from, for reports.
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("rtt_ms", "jitter_ms"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"LinkProfile.{name} is {getattr(self, name)!r}; it must be 0 ms or more")
        for name in ("up_kbps", "down_kbps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"LinkProfile.{name} is {value!r}; it must be above 0 kbit/s, or None")

    @property
    def emulated(self) -> bool:
        """Whether it adds anything to what is under it."""
        return bool(self.rtt_ms or self.jitter_ms or self.up_kbps or self.down_kbps)

    def __str__(self) -> str:
        if not self.emulated:
            return f"{self.name}, nothing added"

        def speed(kbps: float | None) -> str:
            return "unlimited" if kbps is None else f"{kbps / 1000:g} Mbit/s"

        return (
            f"{self.name} (emulated): round trip {self.rtt_ms:g} ms + jitter {self.jitter_ms:g} ms each way, "
            f"{speed(self.down_kbps)} down, {speed(self.up_kbps)} up"
        )


#: Adds nothing: only faults.
LOOPBACK = LinkProfile("loopback", rtt_ms=0.0, source="this machine's own loopback, nothing added")

#: Ready profiles by name. Round trips and bandwidths are published figures; jitter is our assumption.
LINKS: dict[str, LinkProfile] = {
    link.name: link
    for link in (
        LinkProfile(
            "5g",
            rtt_ms=47,
            jitter_ms=4,
            up_kbps=14_560,
            down_kbps=265_800,
            source="Ookla Speedtest, T-Mobile US 5G, January to June 2024: median latency 47 ms, 265.80 Mbit/s down, "
            "14.56 Mbit/s up (RCR Wireless News, 17 July 2024); jitter is an assumption",
        ),
        LinkProfile(
            "4g",
            rtt_ms=53.1,
            jitter_ms=8,
            up_kbps=13_600,
            down_kbps=14_700,
            source="Ofcom, Measuring mobile broadband performance in the UK, April 2015, averages of four 4G networks: "
            "latency 53.1 ms, 14.7 Mbit/s down, 13.6 Mbit/s up; jitter is an assumption",
        ),
        LinkProfile(
            "wifi-fibre",
            rtt_ms=24,
            jitter_ms=3,
            up_kbps=100_000,
            down_kbps=348_860,
            source="FCC, Measuring Broadband America: fibre to the home 24 ms round trip on average; Ookla Speedtest, "
            "AT&T fixed, January to June 2024: median 348.86 Mbit/s down; upload and Wi-Fi jitter are assumptions",
        ),
        LOOPBACK,
    )
}


class Lane:
    """One direction of a link, shared by all its connections, first in first out as a radio's queue is."""

    def __init__(self, *, one_way: float, jitter: float, kbps: float | None, rng: random.Random) -> None:
        """`one_way` and `jitter` in seconds."""
        self.one_way = one_way
        #: Seconds added to every delay from now on.
        self.extra = 0.0
        self._jitter = jitter
        self._bytes_per_second = None if kbps is None else kbps * 1000 / 8
        self._rng = rng
        self._idle_from = 0.0
        self._last_arrival = 0.0

    def pieces(self, data: bytes) -> list[bytes]:
        """Cut what would hold the lane for long into pieces of about 2 ms, so that its first bytes come out first."""
        if self._bytes_per_second is None:
            return [data]
        size = max(1_440, int(self._bytes_per_second * 0.002))
        return [data[start : start + size] for start in range(0, len(data), size)]

    def draw_jitter(self) -> float:
        """Seconds; drawn once for what is sent together."""
        return self._rng.expovariate(1 / self._jitter) if self._jitter else 0.0

    def arrival(self, now: float, size: int, jitter: float) -> float:
        """When `size` bytes that enter at `now` are out; never before what entered earlier."""
        sent = max(now, self._idle_from)
        if self._bytes_per_second is not None:
            sent += size / self._bytes_per_second
        self._idle_from = sent
        self._last_arrival = max(self._last_arrival, sent + self.one_way + self.extra + jitter)
        return self._last_arrival
