"""Brings a client's policy, what is known of the situation and the user's cap to bear on each generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from device_sdk.policies.daily import DailyCap
from device_sdk.policies.decision import Ask, Decision, Policy, StandardPolicy
from device_sdk.policies.situation import Situation
from speed_controller.split import SplitSettings


class Steward:
    """`situation`: what is true now; asked for each generation, and by `HybridClient.reconsider`."""

    def __init__(self, policy: Policy | None, situation: Callable[[], Situation] | None, cap: DailyCap | None) -> None:
        self._policy: Policy = policy or StandardPolicy()
        self._situation = situation or Situation
        self._cap = cap

    def now(self, given: Situation | None) -> Situation:
        """The situation, where what is `given` counts more."""
        return (given or Situation()).over(self._situation())

    def decide(self, ask: Ask, situation: Situation) -> Decision:
        return self._policy.decide(replace(ask, cloud_tokens_left=self.left), situation)

    @property
    def left(self) -> int | None:
        """Cloud tokens that the user still allows today; None: no cap."""
        return None if self._cap is None else self._cap.left()

    def spent(self, tokens: int) -> None:
        """So many came from the cloud."""
        if self._cap is not None and tokens:
            self._cap.spend(tokens)

    def save(self) -> None:
        """What was spent, to disk. Blocks for some seconds at most."""
        if self._cap is not None:
            self._cap.save()


def within(settings: SplitSettings, decision: Decision) -> SplitSettings:
    """The settings, with no larger grant than was decided."""
    if decision.max_grant is None or decision.max_grant >= settings.max_grant:
        return settings
    grant = None if settings.grant is None else min(settings.grant, decision.max_grant)
    return replace(settings, grant=grant, max_grant=decision.max_grant)
