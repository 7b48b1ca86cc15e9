"""Plans on paper: a split configuration with comments, what went into it, and the layout's JSON Schema."""

from planner.config.inputs import fingerprint, fingerprint_file
from planner.config.toml import split_config, to_toml

__all__ = ["fingerprint", "fingerprint_file", "split_config", "to_toml"]
