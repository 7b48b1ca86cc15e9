"""What an app wants its answers to depend on: battery, heat, the network's price, privacy, a deadline, a daily cap."""

from device_sdk.policies.daily import DailyCap
from device_sdk.policies.decision import Ask, Decision, Policy, StandardPolicy
from device_sdk.policies.situation import Privacy, Situation, Thermal

__all__ = ["Ask", "DailyCap", "Decision", "Policy", "Privacy", "Situation", "StandardPolicy", "Thermal"]
