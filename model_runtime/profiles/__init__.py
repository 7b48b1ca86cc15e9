"""Profiles of hardware and of networks: published or measured figures, as versioned JSON. Read by emulation, by the
planner and by nobody's guess: each file says where its figures come from."""

from model_runtime.profiles.hardware import HardwareProfile, Points, load_profile, profile_names
from model_runtime.profiles.links import LinkProfile, link_names, load_link
from model_runtime.profiles.provenance import Measurement, profile_text

__all__ = [
    "HardwareProfile",
    "LinkProfile",
    "Measurement",
    "Points",
    "link_names",
    "load_link",
    "load_profile",
    "profile_names",
    "profile_text",
]
