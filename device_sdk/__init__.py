"""The SDK: one answer from a cloud and a device."""
