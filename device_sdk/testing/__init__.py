"""What you need to test an app that uses the SDK: a bad network in front of a real server, without a bad network."""

from device_sdk.testing.link import Direction, LinkProxy
from device_sdk.testing.link_profiles import LINKS, LOOPBACK
from model_runtime.profiles.links import LinkProfile

__all__ = ["LINKS", "LOOPBACK", "Direction", "LinkProfile", "LinkProxy"]
