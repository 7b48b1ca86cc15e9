"""Demonstrations: one answer from a cloud and a device, side by side with either alone."""
