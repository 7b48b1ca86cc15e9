"""What several commands take: profiles, a deployment, a workload."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from model_runtime.profiles import HardwareProfile, LinkProfile, load_link, load_profile, profile_text
from planner.config.inputs import fingerprint, fingerprint_file
from planner.core import CloudProfile, SplitConfig, Workload
from planner.errors import PlannerError
from planner.workloads import FORMATS, first, open_workload, rescale, sample, window
from speed_controller.plan_file import read_split_config

DEVICE, CLOUD, LINK = "phone-snapdragon-8-elite", "datacentre-a100-pcie", "5g"


def add_profiles(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("profiles: a name from `pd-plan profile list`, or a JSON file")
    group.add_argument("--device", default=DEVICE, metavar="NAME", help="the device (%(default)s)")
    group.add_argument("--cloud", default=CLOUD, metavar="NAME", help="one accelerator of the cloud (%(default)s)")
    group.add_argument("--link", default=LINK, metavar="NAME", help="the network between them (%(default)s)")
    group.add_argument("--device-watts", type=watts, metavar="P,D", help="draw while it prefills and while it decodes")
    cloud = parser.add_argument_group("the cloud")
    cloud.add_argument("--instances", type=int, default=1, metavar="N", help="accelerators (%(default)s)")
    cloud.add_argument(
        "--prefill-instances", type=int, default=0, metavar="N", help="of them, only for prefill; 0: each does both"
    )
    cloud.add_argument(
        "--max-sequences", type=int, default=32, metavar="N", help="generations at once each (%(default)s)"
    )
    cloud.add_argument("--pass-tokens", type=int, default=512, metavar="N", help="tokens of one pass (%(default)s)")
    cloud.add_argument("--price-per-hour", type=float, metavar="X", help="of one accelerator, in any currency")


def read_profiles(given: argparse.Namespace) -> tuple[HardwareProfile, CloudProfile, LinkProfile]:
    """Raises PlannerError, LoadError."""
    device = load_profile(given.device)
    if given.device_watts:
        prefill, decode = given.device_watts
        device = msgspec.structs.replace(device, prefill_watts=prefill, decode_watts=decode)
    try:
        cloud = CloudProfile(
            load_profile(given.cloud),
            instances=given.instances,
            prefill_instances=given.prefill_instances,
            max_sequences=given.max_sequences,
            pass_tokens=given.pass_tokens,
            price_per_hour=given.price_per_hour,
        )
    except ValueError as error:
        raise PlannerError(str(error)) from None
    return device, cloud, load_link(given.link)


def add_workload(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    group = parser.add_argument_group("workload")
    what = "a trace, or a generator: poisson:…, gamma:…, diurnal:… with rate, requests, prompt, output, seed"
    if positional:
        group.add_argument("workload", metavar="WORKLOAD", help=what)
    else:
        group.add_argument("--workload", required=True, metavar="WORKLOAD", help=what)
    group.add_argument("--format", choices=sorted(FORMATS), help="of the trace; by default told by its beginning")
    group.add_argument("--conversation-rate", type=float, default=1.0, metavar="X", help="requests/s of conversations")
    group.add_argument("--window", type=_window, metavar="A:B", help="only requests from A until before B seconds")
    group.add_argument("--sample", type=float, metavar="SHARE", help="keep each request with this probability")
    group.add_argument("--rate-factor", type=float, metavar="X", help="X times as many requests per second")
    group.add_argument("--first", type=int, metavar="N", help="the first N requests only")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of everything drawn (%(default)s)")


def read_workload(given: argparse.Namespace) -> Workload:
    """Raises WorkloadError."""
    workload = open_workload(given.workload, given.format, rate=given.conversation_rate, seed=given.seed)
    if given.window:
        workload = window(workload, *given.window)
    if given.sample is not None:
        workload = sample(workload, given.sample, given.seed)
    if given.rate_factor is not None:
        workload = rescale(workload, given.rate_factor)
    if given.first is not None:
        workload = first(workload, given.first)
    return workload


def read_config(path: Path) -> SplitConfig:
    """Raises PlannerError, SplitFileError."""
    try:
        return read_split_config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlannerError(f"cannot read {path}: {error.strerror}") from None


def provenance(profile: HardwareProfile | LinkProfile) -> str:
    """Whether somebody published the figures or somebody measured them."""
    if profile.measured is None:
        return "published"
    return f"measured on {profile.measured.machine}, {profile.measured.date}"


def input_hashes(
    given: argparse.Namespace, device: HardwareProfile, cloud: CloudProfile, link: LinkProfile, workload: Workload
) -> dict[str, str]:
    """For the plan: what went into it."""
    hashes = {
        role: fingerprint(f"{profile.name} ({provenance(profile)})", profile_text(profile))
        for role, profile in (("device", device), ("cloud", cloud.hardware), ("link", link))
    }
    path = Path(given.workload)
    hashes["workload"] = (
        f"{workload.source}; {fingerprint_file(path)}"
        if path.is_file()
        else fingerprint(workload.source, workload.source)
    )
    return hashes


def watts(text: str) -> tuple[float, float]:
    """`P,D`, for argparse."""
    return _pair(text, ",", "watts while it prefills and while it decodes, as 6.5,4.0")


def _window(text: str) -> tuple[float, float | None]:
    start, _, stop = text.partition(":")
    try:
        return float(start or 0), float(stop) if stop else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no window; write seconds as 600:1200") from None


def _pair(text: str, separator: str, what: str) -> tuple[float, float]:
    try:
        first_value, second = (float(part) for part in text.split(separator))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
    if min(first_value, second) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0: {what}")
    return first_value, second
