"""Constrained answers: JSON schema, regex and grammar, held over any engine's logits.

    compiled = compile_constraint(JsonSchema({"type": "integer"}), engine.tokenizer)
    sampler = Sampler(SamplingParams(), prompt, compiled.start())

Both sides of a split sample with this: a matcher follows the tokens so far, whoever made them, and leaves only those
that may come next. `JsonSchema`, `Regex` and `Grammar` are plain values; the rest needs llguidance, which is imported
where it is used: `pip install 'pd-device[structured]'`.
"""

from model_runtime.constraint.library import available
from model_runtime.constraint.matcher import Compiled, Matcher, Watch, compile_constraint
from model_runtime.constraint.spec import Constraint, Grammar, JsonSchema, Kind, Regex, constraint_from

__all__ = [
    "Compiled",
    "Constraint",
    "Grammar",
    "JsonSchema",
    "Kind",
    "Matcher",
    "Regex",
    "Watch",
    "available",
    "compile_constraint",
    "constraint_from",
]
