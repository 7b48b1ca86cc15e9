"""`pd-plan profile device|cloud|link|list`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from model_runtime.profiles import (
    HardwareProfile,
    LinkProfile,
    link_names,
    load_link,
    load_profile,
    profile_names,
    profile_text,
)
from planner.cli.inputs import provenance, watts
from planner.cli.output import emit, note, say, table
from planner.profiling.cloud import CloudPlan, measure_cloud
from planner.profiling.device import DevicePlan, Provenance, measure_device
from planner.profiling.link import measure_link
from planner.profiling.live import connected

_DESCRIPTION = """\
Profiles say how fast hardware is and what a network is like. Those that come with the package are published figures,
each with its source; those made here are measured, and say on what, when and how.
"""
_EPILOG = """\
examples:
  pd-plan profile list
  pd-plan profile device --model demos/models/device --name my-phone --out my-phone.json
  pd-plan profile cloud --url ws://127.0.0.1:8080 --out my-cloud.json
  pd-plan profile link --url wss://cloud.example --out my-link.json
A file that is written can be given wherever a profile's name is expected.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    formatter = argparse.RawDescriptionHelpFormatter
    known = kinds.add_parser("list", help="the profiles that come with the package", formatter_class=formatter)
    known.epilog = "example:\n  pd-plan profile list --json\n"
    device = kinds.add_parser("device", help="an engine on this machine", formatter_class=formatter)
    device.epilog = "example:\n  pd-plan profile device --model demos/models/device/model.onnx --quick\n"
    _add_device(device)
    cloud = kinds.add_parser("cloud", help="a live service, alone and under concurrency", formatter_class=formatter)
    cloud.epilog = "example:\n  pd-plan profile cloud --url ws://127.0.0.1:8080 --concurrency 1,2,4,8\n"
    _add_url(cloud)
    usual = CloudPlan()
    cloud.add_argument("--words", type=_sizes, default=usual.words, metavar="A,B,…", help="of the prompts")
    cloud.add_argument("--concurrency", type=_sizes, default=usual.concurrency, metavar="A,B,…", help="answers at once")
    cloud.add_argument("--grant", type=int, default=usual.grant, metavar="N", help="tokens of an answer (%(default)s)")
    link = kinds.add_parser("link", help="the network to a live service", formatter_class=formatter)
    link.epilog = "example:\n  pd-plan profile link --url wss://cloud.example --pings 100\n"
    _add_url(link)
    link.add_argument("--pings", type=int, default=50, metavar="N", help="round trips (%(default)s)")
    for measured, name in ((device, "this-machine"), (cloud, "this-cloud"), (link, "this-link")):
        measured.add_argument("--name", default=name, help="of the profile (%(default)s)")
        measured.add_argument("--out", type=Path, metavar="FILE", help="write the profile there")
    for kind in (known, device, cloud, link):
        kind.add_argument("--json", action="store_true", help="print one JSON object")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="GGUF, ONNX file or folder, hf://owner/name[/file]"
    )
    parser.add_argument("--engine", choices=("auto", "onnx", "llama"), default="auto", help="by default by the file")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; by default what the engine chooses")
    parser.add_argument("--context-length", type=int, metavar="N", help="tokens; by default the model's own")
    parser.add_argument("--gpu-layers", type=int, default=0, metavar="N", help="layers on a GPU, llama.cpp only")
    parser.add_argument("--emulate", metavar="NAME", help="stretch passes to a hardware profile (labelled as emulated)")
    parser.add_argument(
        "--sustained", type=float, default=0.0, metavar="S", help="seconds of uninterrupted work, for heat"
    )
    parser.add_argument(
        "--watts", type=watts, metavar="P,D", help="draw that you measured, while it prefills and decodes"
    )
    parser.add_argument("--quick", action="store_true", help="fewer lengths and repeats")


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="ws://host[:port] or wss://host[:port]")
    parser.add_argument(
        "--api-key", default=os.environ.get("PD_API_KEY"), metavar="KEY", help="by default the variable PD_API_KEY"
    )


def run(given: argparse.Namespace) -> int:
    measure: dict[str, Callable[[argparse.Namespace], HardwareProfile | LinkProfile]] = {
        "device": _device, "cloud": _cloud, "link": _link,
    }  # fmt: skip
    if given.kind == "list":
        return _list(as_json=given.json)
    profile = measure[given.kind](given)
    if given.out:
        given.out.write_text(profile_text(profile), encoding="utf-8")
        note(f"written to {given.out}")
    if given.json:
        emit(msgspec.to_builtins(profile))
    elif isinstance(profile, HardwareProfile):
        _show(profile)
    else:
        say(str(profile).replace(" (emulated)", f" ({provenance(profile)})"))
        for line in profile.approximate:
            say(f"  {line}")
    return 0


def _device(given: argparse.Namespace) -> HardwareProfile:
    from model_runtime.emulated import EmulatedEngine
    from model_runtime.loading import load_engine

    before = _peak_mib()
    begun = time.perf_counter()
    engine = load_engine(
        given.model,
        engine=given.engine,
        threads=given.threads,
        context_length=given.context_length,
        gpu_layers=given.gpu_layers,
    )
    load_ms = (time.perf_counter() - begun) * 1000
    if given.emulate:
        engine = EmulatedEngine(engine, load_profile(given.emulate))
    plan = DevicePlan(sustained=given.sustained)
    if given.quick:
        plan = DevicePlan(
            (128, 512), (64, 256), (16, 512), (1, 2), decode_steps=8, repeats=3, sustained=given.sustained
        )
    with engine:
        what = Provenance(given.name, f"{given.model} on {engine.info.hardware}", _today(), _machine(), _command())
        profile = measure_device(engine, plan, what, load_ms=load_ms, progress=note)
    profile = msgspec.structs.replace(profile, memory_mib=max(0.0, _peak_mib() - before))
    if given.watts:
        prefill, decode = given.watts
        told = (*profile.approximate, "prefill_watts and decode_watts: as given on the command line")
        profile = msgspec.structs.replace(profile, prefill_watts=prefill, decode_watts=decode, approximate=told)
    return profile


def _cloud(given: argparse.Namespace) -> HardwareProfile:
    what = Provenance(given.name, f"the service at {given.url}", _today(), _machine(), _command())
    plan = CloudPlan(words=given.words, concurrency=given.concurrency, grant=given.grant)

    async def measure() -> HardwareProfile:
        async with connected(given.url, given.api_key) as live:
            return await measure_cloud(live, plan, what, progress=note)

    return asyncio.run(measure())


def _link(given: argparse.Namespace) -> LinkProfile:
    what = Provenance(given.name, f"to {given.url}", _today(), _machine(), _command())

    async def measure() -> LinkProfile:
        async with connected(given.url, given.api_key) as live:
            return await measure_link(live, what, pings=given.pings, progress=note)

    return asyncio.run(measure())


def _show(profile: HardwareProfile) -> None:
    say(f"{profile.name}: {profile.title} ({provenance(profile)})")
    rows = [[f"prefill of {tokens:,}", f"{rate:,.1f} tokens/s"] for tokens, rate in profile.prefill_tokens_per_s]
    rows += [[f"decode at {context:,}", f"{ms:.2f} ms"] for context, ms in profile.decode_ms]
    rows.append(["each pass", f"{profile.pass_overhead_ms:.2f} ms"])
    rows.append(["jitter of a pass, of an answer", f"{profile.jitter:.1%}, {profile.spread:.1%}"])
    if profile.batch_share is not None:
        rows.append(["one more in a decode pass", f"+{profile.batch_share:.1%}"])
    for name, value, unit in (
        ("load", profile.load_ms, "ms"),
        ("first pass, longer by", profile.warm_up_ms, "ms"),
        ("memory", profile.memory_mib, "MiB"),
    ):
        if value is not None:
            rows.append([name, f"{value:,.0f} {unit}"])
    rows += [[f"after {seconds:.0f} s of work", f"{share:.1%} of the speed"] for seconds, share in profile.sustained]
    table(["", "measured" if profile.measured else "published"], rows)
    for line in profile.approximate:
        say(f"  {line}")


def _list(*, as_json: bool) -> int:
    hardware = [load_profile(name) for name in profile_names()]
    links = [load_link(name) for name in link_names()]
    if as_json:
        emit(
            {
                "hardware": [msgspec.to_builtins(one) for one in hardware],
                "links": [msgspec.to_builtins(one) for one in links],
            }
        )
        return 0
    rows = [
        [
            one.name,
            one.kind,
            f"{one.prefill_tokens_per_s[0][1]:,.0f}",
            f"{one.decode_ms[0][1]:.1f}",
            provenance(one),
        ]
        for one in sorted(hardware, key=lambda one: (one.kind, one.name))
    ]
    table(["hardware", "kind", "prefill tokens/s", "decode ms", "figures"], rows)
    say()
    rows = [
        [
            one.name,
            f"{one.rtt_ms:g}",
            f"{one.jitter_ms:g}",
            "-" if one.down_kbps is None else f"{one.down_kbps / 1000:g}",
            "-" if one.up_kbps is None else f"{one.up_kbps / 1000:g}",
            provenance(one),
        ]
        for one in links
    ]
    table(["link", "round trip ms", "jitter ms", "Mbit/s down", "up", "figures"], rows)
    say("\nsources and what is approximate: pd-plan profile list --json")
    return 0


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _machine() -> str:
    return f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"


def _command() -> str:
    """As it was called, but for what nobody else may read."""
    words = list(sys.argv[1:])
    for at, word in enumerate(words):
        if word == "--api-key" and at + 1 < len(words):
            words[at + 1] = "…"
        elif word.startswith("--api-key="):
            words[at] = "--api-key=…"
    return shlex.join(["pd-plan", *words])


def _peak_mib() -> float:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} are no sizes; write 64,256,1024")
    return sizes
