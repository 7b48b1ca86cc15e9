"""Which models run on which hardware over which network, and how that is labelled."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demos
from demos.defaults import LINK
from demos.side_by_side.errors import UsageError
from device_sdk.testing import LINKS, LinkProfile
from model_runtime.emulated import EmulatedEngine
from model_runtime.errors import LoadError
from model_runtime.loading import load_engine
from model_runtime.profiles import HardwareProfile, load_profile

if TYPE_CHECKING:
    from demos.side_by_side.options import Options
    from model_runtime.core import Engine
    from model_runtime.hub_files import EngineName

_MODELS = Path(demos.__file__).parent / "models"
#: CPU threads of each side. Both processes share this machine: the device, which works all the time, keeps to one core;
#: the cloud, which works in short bursts, may use another beside it to keep up with the hardware that it stands for.
DEVICE_THREADS = 1
CLOUD_THREADS = 2


@dataclass(frozen=True, slots=True)
class Hardware:
    device_model: str
    cloud_model: str
    #: None: this machine's own speed.
    device_profile: HardwareProfile | None
    cloud_profile: HardwareProfile | None
    link: LinkProfile
    #: `auto` goes by the file.
    engine: EngineName

    def lines(self) -> list[str]:
        """What the demo says about it before it starts."""
        return [
            f"device  {_title(self.device_profile)}",
            f"cloud   {_title(self.cloud_profile)}",
            f"link    {self.link}",
        ]

    def sources(self) -> list[str]:
        named = (("device", self.device_profile), ("cloud", self.cloud_profile), ("link", self.link))
        return [f"{side}: {profile.source}" for side, profile in named if profile is not None]

    def as_json(self, slower: SlowerThanEmulated) -> dict[str, Any]:
        return {
            "device": _profile_json(self.device_profile, self.device_model, slower.device),
            "cloud": _profile_json(self.cloud_profile, self.cloud_model, slower.cloud),
            "link": {
                "name": self.link.name,
                "emulated": self.link.emulated,
                "rtt_ms": self.link.rtt_ms,
                "jitter_ms": self.link.jitter_ms,
                "up_kbps": self.link.up_kbps,
                "down_kbps": self.link.down_kbps,
                "source": self.link.source,
            },
        }


@dataclass(frozen=True, slots=True)
class SlowerThanEmulated:
    """Whether passes took longer on this machine than the profile says, in words; None where none did. What was
    measured of them is this machine, not the profile."""

    device: str | None = None
    cloud: str | None = None

    def lines(self) -> list[str]:
        sides = (("device", self.device), ("cloud", self.cloud))
        return [
            f"note: this machine is slower than the emulated {side}: {said}" for side, said in sides if said is not None
        ]


def slower_than_emulated(engine: Engine, cloud_log: Path) -> SlowerThanEmulated:
    """From what the device's engine counted and the cloud process logged."""
    details = engine.info.details
    passes, worst = details.get("slower_passes"), details.get("worst_excess_ms")
    device = f"{passes} passes took longer, by {worst} ms at most" if passes else None
    logged = cloud_log.read_text(encoding="utf-8", errors="replace")
    cloud = "some passes took longer" if "this machine is slower than the emulated" in logged else None
    return SlowerThanEmulated(device, cloud)


def choose(options: Options) -> Hardware:
    """Raises UsageError for a model or a profile that is not there."""
    cloud_model = options.cloud_model or _bundled("cloud", options.engine)
    device_model = options.device_model or (cloud_model if options.same_model else _bundled("device", options.engine))
    link = options.link or ("loopback" if options.raw else LINK)
    return Hardware(
        device_model=device_model,
        cloud_model=cloud_model,
        device_profile=None if options.raw else _profile(options.device_profile),
        cloud_profile=None if options.raw else _profile(options.cloud_profile),
        link=LINKS[link],
        engine=options.engine,
    )


def load_device(hardware: Hardware, seed: int) -> Engine:
    """Blocks while it loads. Raises UsageError."""
    try:
        engine = load_engine(hardware.device_model, engine=hardware.engine, threads=DEVICE_THREADS)
    except LoadError as error:
        raise UsageError(f"the device's model does not load: {error}") from None
    if hardware.device_profile is None:
        return engine
    return EmulatedEngine(engine, hardware.device_profile, seed=seed, yields=True)


def machine() -> dict[str, Any]:
    """What all of this really ran on."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "pd_device": _version("pd-device"),
        "onnxruntime": _version("onnxruntime"),
        "llama_cpp_python": _version("llama-cpp-python"),
    }


def _bundled(side: str, engine: EngineName) -> str:
    path = _MODELS / side
    wanted = path / ("model.gguf" if engine == "llama" else "model.onnx")
    if not wanted.exists():
        raise UsageError(f"the bundled model {wanted} is missing; give one with --{side}-model PATH")
    return str(wanted)


def _profile(name: str) -> HardwareProfile:
    try:
        return load_profile(name)
    except LoadError as error:
        raise UsageError(str(error)) from None


def _title(profile: HardwareProfile | None) -> str:
    return "this machine, not emulated" if profile is None else f"{profile.title} (emulated)"


def _profile_json(profile: HardwareProfile | None, model: str, slower: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {"model": model, "emulated": profile is not None}
    if profile is not None:
        described |= {
            "name": profile.name,
            "title": profile.title,
            "source": profile.source,
            "approximate": list(profile.approximate),
            "machine_was_slower": slower,
        }
    return described


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
