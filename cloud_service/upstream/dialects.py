"""How the servers that speak OpenAI's API differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_runtime.sampling import SamplingParams


class NotOfferedError(Exception):
    """A request asks for what the server does not offer; to leave that out would change the answer unseen."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a server calls these in its `/metrics`."""

    running: str
    waiting: str
    kv_share: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    name: str
    #: Sampling parameters beyond OpenAI's own, by our name, as this server calls them.
    beyond: Mapping[str, str] = field(default_factory=dict)
    #: What goes with every request, so that the server's own defaults do not change the answer.
    always: Mapping[str, Any] = field(default_factory=dict)
    #: The `top_k` that leaves none out.
    all_tokens: int = 0
    #: Requests can be ordered, smaller numbers first, where the server was started so.
    priority: bool = False
    gauges: Gauges | None = None

    def sampling(self, params: SamplingParams, seed: int) -> dict[str, Any]:
        """The fields of a request. Raises NotOfferedError."""
        body: dict[str, Any] = {
            **self.always,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty,
            "seed": seed % 2**31,
        }
        for name, neutral in _NEUTRAL.items():
            value = getattr(params, name)
            if name in self.beyond:
                body[self.beyond[name]] = self.all_tokens if name == "top_k" and value == 0 else value
            elif value != neutral:
                raise NotOfferedError(f"`{name}` is not offered by {self.name}, which answers here: leave it out")
        return body


_NEUTRAL: dict[str, float] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}

VLLM = Dialect(
    "vLLM",
    {name: name for name in _NEUTRAL},
    priority=True,
    gauges=Gauges(
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ),
)
SGLANG = Dialect(
    "SGLang",
    {name: name for name in _NEUTRAL},
    all_tokens=-1,
    gauges=Gauges("sglang:num_running_reqs", "sglang:num_queue_reqs", ("sglang:token_usage",)),
)
LLAMA_SERVER = Dialect(
    "llama-server",
    {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
    # Its penalties look at the newest 64 tokens unless told to look at all.
    always={"repeat_last_n": -1, "cache_prompt": True},
    gauges=Gauges("llamacpp:requests_processing", "llamacpp:requests_deferred", ("llamacpp:kv_cache_usage_ratio",)),
)
#: Its penalties look at the newest 64 tokens, whatever is asked: not what ours does.
LLAMA_CPP_PYTHON = Dialect("llama-cpp-python", {"top_k": "top_k", "min_p": "min_p"}, always={"repeat_penalty": 1.0})
OPENAI = Dialect("an OpenAI-compatible server")

#: By what `/v1/models` gives as `owned_by`.
_BY_OWNER = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA_SERVER, "me": LLAMA_CPP_PYTHON}


def dialect_of(owned_by: str) -> Dialect:
    return _BY_OWNER.get(owned_by, OPENAI)
