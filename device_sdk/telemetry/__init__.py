"""What the SDK tells of a generation to tracing tools, where an app asks for it. Never any text of prompt or answer."""

from device_sdk.telemetry.tracing import Began, NoTracing, Trace, Tracing

__all__ = ["Began", "NoTracing", "Trace", "Tracing"]
