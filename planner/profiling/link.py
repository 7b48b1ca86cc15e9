"""What the network to a live service is like: what `pd-plan profile link` runs."""

from __future__ import annotations

import itertools
import socket
import statistics
import struct
import sys
from collections.abc import Callable

from model_runtime.profiles import LinkProfile, Measurement
from planner.errors import MeasurementError
from planner.profiling.device import Provenance
from planner.profiling.live import Live
from wire_protocol.messages import Generate

#: Tokens of the request that measures the way up. Ids do not travel on this connection, so the service refuses it at
#: once, unread by any engine.
_LARGE = 60_000
_TOKEN = 70_000  # five bytes in MessagePack
#: Seconds. Below this, what a large request takes longer may as well be parsing as sending.
_RESOLUTION = 0.050
#: Where `struct tcp_info` of Linux has tcpi_total_retrans and tcpi_segs_out.
_RETRANSMITTED, _SENT = 100, 136


async def measure_link(
    live: Live, provenance: Provenance, *, pings: int = 50, progress: Callable[[str], None] = lambda _: None
) -> LinkProfile:
    """Raises MeasurementError."""
    if pings < 5:
        raise MeasurementError(f"{pings} pings say nothing of jitter; at least 5 are needed")
    progress(f"{pings} round trips")
    trips = [await live.round_trip() for _ in range(pings)]
    progress("a large request")
    small, large = await _refused(live, 1), await _refused(live, _LARGE)
    longer = large - small
    approximate = ["down_kbps: not measured; tokens need a few kbit/s"]
    up: float | None = None
    if longer > _RESOLUTION:
        up = _LARGE * 5 * 8 / longer / 1000
    else:
        approximate.append(
            f"up_kbps: not told apart from parsing; at least {_LARGE * 40 / _RESOLUTION / 1e6:.0f} Mbit/s"
        )
    lost = _loss(live.connection.socket)
    if lost is None:
        approximate.append("loss: this system does not tell; 0 is assumed")
    return LinkProfile(
        name=provenance.name,
        rtt_ms=min(trips) * 1000,
        jitter_ms=jitter(trips) * 1000,
        up_kbps=up,
        down_kbps=None,
        loss=lost or 0.0,
        source=f"measured by pd-plan profile link, {provenance.title}, {provenance.date}",
        approximate=tuple(approximate),
        measured=Measurement(
            date=provenance.date,
            machine=provenance.machine,
            command=provenance.command,
            points={
                "round_trip_ms": [[trip * 1000] for trip in trips],
                "request_bytes_then_ms": [[_LARGE * 5, large * 1000]],
            },
        ),
    )


def jitter(trips: list[float]) -> float:
    """The mean extra delay each way, J. A round trip has two of them, exponential; two round trips then differ by
    1.5 J on average."""
    return statistics.mean(abs(after - before) for before, after in itertools.pairwise(trips)) / 1.5


async def _refused(live: Live, tokens: int) -> float:
    """Seconds until a request with a prompt in ids is refused; the best of three."""
    return min([(await live.send(Generate("", 1, prompt=(_TOKEN,) * tokens))).ended for _ in range(3)])


def _loss(open_socket: socket.socket | None) -> float | None:
    """The share of segments that TCP had to send again; None where the system does not say."""
    if open_socket is None or not sys.platform.startswith("linux"):
        return None
    info = open_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _SENT + 4:
        return None
    again, sent = (struct.unpack_from("=I", info, at)[0] for at in (_RETRANSMITTED, _SENT))
    return min(0.99, again / sent) if sent else None
