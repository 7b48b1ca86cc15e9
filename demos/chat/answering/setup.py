"""What is to answer: the two sides and the network between them, as chosen. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import demos
from demos.defaults import CLOUD_PROFILE, DEVICE_PROFILE, LINK

_MODELS = Path(demos.__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class DeviceSetup:
    #: A file, a folder, or `hf://owner/name[@revision][/file]`.
    model: str
    #: A hardware profile to emulate; None runs at this machine's own speed.
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteCloud:
    """A service that somebody runs."""

    url: str
    api_key: str | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class LocalCloud:
    """A service process of this program's own, on this machine."""

    model: str
    profile: str | None = None


Cloud: TypeAlias = RemoteCloud | LocalCloud


@dataclass(frozen=True, slots=True)
class Setup:
    #: None: no such side.
    device: DeviceSetup | None = None
    cloud: Cloud | None = None
    #: The network to emulate, a name in `device_sdk.testing.LINKS`; `loopback` adds nothing.
    link: str = "loopback"


def bundled_model(side: str) -> str:
    """The model of the repository that stands for `device` or `cloud`."""
    return str(_MODELS / side / "model.onnx")


def demo_setup() -> Setup:
    """Bundled models on emulated hardware over an emulated network: runs on a fresh machine, as `pd-demo` does."""
    return Setup(
        DeviceSetup(bundled_model("device"), DEVICE_PROFILE),
        LocalCloud(bundled_model("cloud"), CLOUD_PROFILE),
        LINK,
    )
