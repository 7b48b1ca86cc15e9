"""Short words for states, the same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demos.chat.answering.states import SideState
    from demos.chat.history.records import State
    from device_sdk import Report


def state_line(state: State, report: Report | None) -> str:
    """Empty where an answer is simply whole, or under way."""
    match state:
        case "stopped":
            return "Stopped"
        case "failed":
            return "Not finished"
        case "cut_off":
            return "Cut off when the program ended"
        case "whole" if report is not None and report.finish_reason == "length":
            return "Ended at the length limit"
        case _:
            return ""


def side_line(state: SideState) -> str:
    """What a side is doing, for its tooltip and its page."""
    match state.phase:
        case "off":
            return state.text or "not set up"
        case "downloading":
            return "downloading" + _percent(state)
        case "loading":
            return "loading" + _percent(state)
        case "ready":
            return state.text
        case "failed":
            return f"not available: {state.text}"
        case "stopped":
            return state.text


def age_group(then: float, now: float) -> str:
    """For headings in a list of conversations. Seconds since 1970, days of this machine's calendar."""
    day = datetime.fromtimestamp(then, UTC).astimezone().date()
    days = (datetime.fromtimestamp(now, UTC).astimezone().date() - day).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    if days < 7:
        return "This week"
    return "Earlier"


def _percent(state: SideState) -> str:
    return "" if state.fraction is None else f", {state.fraction:.0%}"
