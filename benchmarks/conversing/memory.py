"""Resident memory, each figure in a process of its own: what earlier ones left behind would hide it.

As a program (`python -m benchmarks.conversing.memory peak|many MODEL …`) it is such a process and prints JSON. Linux
only.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.conversing.figures import Figure
from demos.training.logbook import held_out
from device_sdk import HybridClient, Mode, PaceSettings, SplitSettings
from device_sdk.conversation import Conversation
from model_runtime.core import Chunk, Engine, Logits
from model_runtime.loading import load_engine

#: MB beyond weights and KV cache: what the runtime needs to run a pass.
ALLOWED = 100.0
#: MB; 180 conversations that leaked one page of 16 kB for each of them would show.
FLAT = 3.0
DOCUMENTS = 5
UNPACED = SplitSettings(pace=PaceSettings(mode="off"))
ANSWER_TOKENS = 32


def peak(model: Path, prompt_tokens: int) -> Figure:
    found = _process("peak", str(model), str(prompt_tokens))
    more = found["peak"] - found["imported"]
    allowed = found["weights"] + found["kv"] + ALLOWED
    which = f"{model.parent.name} ({model.suffix[1:]})"
    name = f"peak of {which} at {found['prompt_tokens']:.0f} prompt tokens beyond the libraries"
    aim = f"at most {found['weights']:.0f} weights + {found['kv']:.0f} KV + {ALLOWED:.0f}"
    return Figure(name, more, "MB", aim, more <= allowed, details=found)


def many(model: Path, conversations: int) -> Figure:
    found = _process("many", str(model), str(conversations))
    sizes = found["resident"]
    # What the allocators keep for the next ones is settled after the first tenth.
    settled = sizes[len(sizes) // 10 :]
    growth = settled[-1] - settled[0]
    name = f"growth from conversation {len(sizes) // 10} to {len(sizes)}, opened and closed"
    return Figure(name, growth, "MB", f"at most {FLAT:g}", growth <= FLAT, details=found)


def _process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.conversing.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_800)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- in that process ------------------------------------------------------------------------------------------------


def _status(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}: this figure needs Linux")


def _weights(model: Path) -> float:
    """MB of the files that the graph's weights are in."""
    files = [model, *model.parent.glob("*.safetensors")] if model.suffix == ".onnx" else [model]
    return sum(file.stat().st_size for file in files) / 1e6


async def _peak(model: Path, prompt_tokens: int) -> dict[str, float]:
    # Libraries are loaded with the first model, and are none of it.
    import tokenizers  # noqa: F401

    if model.suffix == ".gguf":
        import llama_cpp  # noqa: F401
    else:
        import onnxruntime  # noqa: F401

    imported = _status("VmRSS")
    with load_engine(model, threads=1, max_sequences=1) as engine:
        loaded = _status("VmRSS")
        async with (
            HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED) as client,
            Conversation(client) as conversation,
        ):
            answer = await conversation.send(_text(engine, prompt_tokens), max_tokens=ANSWER_TOKENS)
            tokens = conversation.warm_tokens
        highest = _status("VmHWM")
        kv = tokens * _token_bytes(engine) / 1e6
    prompt = answer.report.prompt_tokens
    return {
        "imported": imported,
        "loaded": loaded,
        "peak": highest,
        "weights": _weights(model),
        "kv": kv,
        "kv_tokens": tokens,
        "prompt_tokens": prompt,
    }


def _text(engine: Engine, prompt_tokens: int) -> str:
    """Of a logbook, as much as makes a prompt of this length with the template (to a token or two)."""
    (case,) = held_out("lookup", prompt_tokens + 500, 1, seed=3)
    tokenizer = engine.tokenizer
    template = len(tokenizer.render_chat([{"role": "user", "content": ""}]))
    ids = tokenizer.encode(case.messages[0]["content"])[: prompt_tokens - template]
    return b"".join(map(tokenizer.token_bytes, ids)).decode(errors="ignore")


def _token_bytes(engine: Engine) -> int:
    """Of one token's KV: what exporting two tokens takes more than exporting one."""
    sizes = []
    for count in (1, 2):
        sequence = engine.open()
        engine.forward([Chunk(sequence, [1] * count, Logits.NONE)])
        sizes.append(len(engine.export_kv(sequence)))
        engine.close(sequence)
    return sizes[1] - sizes[0]


async def _many(model: Path, conversations: int) -> dict[str, list[float]]:
    resident = []
    with load_engine(model, threads=1) as engine:
        async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED) as client:
            # The same few documents again and again: a tokenizer remembers words, and new ones would look like a leak.
            documents = itertools.cycle(list(held_out("lookup", 250, DOCUMENTS, seed=5)))
            for number, case in enumerate(itertools.islice(documents, conversations)):
                async with Conversation(client, system=f"Log {number % DOCUMENTS}.") as conversation:
                    await conversation.send(case.messages, max_tokens=4)
                    await conversation.send("And then?", max_tokens=4)
                resident.append(_status("VmRSS"))
    return {"resident": resident}


if __name__ == "__main__":
    work = {"peak": _peak, "many": _many}[sys.argv[1]]
    print(json.dumps(asyncio.run(work(Path(sys.argv[2]), int(sys.argv[3])))))
