"""Make a model from another's weights: deeper and wider without changing what it says, with new tokens, blended with
what training made of it, or with what training taught another added.

python -m demos.training.grow deeper device.pt cloud.pt --after 1 2 4 --feed-forward 512
python -m demos.training.grow retoken device.pt device-alt.pt --old TOKENIZER_FOLDER --new TOKENIZER_FOLDER
python -m demos.training.grow blend cloud-start.pt cloud.pt --trained cloud-trained.pt --share 0.6
python -m demos.training.grow add deeper.pt cloud-start.pt --trained old-cloud.pt --before old-cloud-start.pt
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from demos.training.architecture import DecoderConfig
from demos.training.chat import CHATML, TAGGED

State = dict[str, torch.Tensor]


def deepen(config: DecoderConfig, state: State, after: list[int]) -> tuple[DecoderConfig, State]:
    """Copies of some blocks behind themselves, which add nothing until trained (as LLaMA Pro, arXiv 2401.02415)."""
    order: list[tuple[int, bool]] = []
    for layer in range(config.layers):
        order.append((layer, False))
        order += [(layer, True)] * after.count(layer)
    grown = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    for new, (old, silent) in enumerate(order):
        for name, value in state.items():
            prefix = f"blocks.{old}."
            if not name.startswith(prefix):
                continue
            part = name.removeprefix(prefix)
            gone = silent and part in {"o.weight", "down.weight"}
            grown[f"blocks.{new}.{part}"] = torch.zeros_like(value) if gone else value.clone()
    return replace(config, layers=len(order)), grown


def widen(config: DecoderConfig, state: State, feed_forward: int) -> tuple[DecoderConfig, State]:
    """More feed-forward units, drawn like the old ones, whose outputs start at nothing."""
    extra = feed_forward - config.feed_forward
    grown = dict(state)
    for layer in range(config.layers):
        gate, up = state[f"blocks.{layer}.gate_up.weight"].chunk(2)
        down = state[f"blocks.{layer}.down.weight"]
        drawn = [torch.randn(extra, config.width) * part.std() for part in (gate, up)]
        grown[f"blocks.{layer}.gate_up.weight"] = torch.cat((gate, drawn[0], up, drawn[1]))
        grown[f"blocks.{layer}.down.weight"] = torch.cat((down, torch.zeros(config.width, extra)), 1)
    return replace(config, feed_forward=feed_forward), grown


def retoken(config: DecoderConfig, state: State, old: Tokenizer, new: Tokenizer) -> tuple[DecoderConfig, State]:
    """Each new token begins as the mean of the old tokens that spell it; marks as the old marks of their role."""
    marks = {TAGGED.end: [CHATML.end], TAGGED.padding: [CHATML.padding]}
    for role in TAGGED.roles:
        marks[f"<|{role}|>"] = ["<|im_start|>", role]
    before = state["embed.weight"]
    rows = torch.empty(new.get_vocab_size(), config.width)
    for index in range(new.get_vocab_size()):
        token = new.id_to_token(index)
        if token in marks:
            ids = [i for piece in marks[token] for i in old.encode(piece, add_special_tokens=False).ids]
        elif old.token_to_id(token) is not None:
            ids = [old.token_to_id(token)]
        else:
            # The vocabulary spells bytes as letters: pieces of the spelling are pieces of the text.
            ids = _spelled(token, old)
        rows[index] = before[ids].mean(0)
    return replace(config, vocabulary=len(rows)), {**state, "embed.weight": rows}


def blend(state: State, trained: State, share: float) -> State:
    """`share` of the way from one to the other, often better than either (model soups, arXiv 2203.05482)."""
    return {name: torch.lerp(value, trained[name], share) for name, value in state.items()}


def add(state: State, trained: State, before: State) -> State:
    """What training taught another body, as a difference, added to this one (task vectors, arXiv 2212.04089)."""
    return {name: value + trained[name] - before[name] for name, value in state.items()}


def _spelled(token: str, old: Tokenizer) -> list[int]:
    ids = []
    while token:
        length = next(n for n in range(len(token), 0, -1) if old.token_to_id(token[:n]) is not None)
        ids.append(old.token_to_id(token[:length]))
        token = token[length:]
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", choices=("deeper", "retoken", "blend", "add"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--after", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--feed-forward", type=int, default=512)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--new", type=Path)
    parser.add_argument("--trained", type=Path, help="what `source` became")
    parser.add_argument("--before", type=Path, help="for `add`: what --trained was trained from")
    parser.add_argument("--share", type=float, default=0.6, help="of --trained")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    saved = torch.load(options.source, weights_only=True)
    config, state = DecoderConfig(**saved["config"]), saved["model"]
    # Heads fit the body that they learnt behind: the same one with other tokens, or one near it.
    hints = saved.get("hints") if options.how in {"retoken", "add"} else None
    if options.how == "deeper":
        config, state = widen(config, state, options.feed_forward)
        config, state = deepen(config, state, options.after)
    elif options.how == "blend":
        trained = torch.load(options.trained, weights_only=True)
        state = blend(state, trained["model"], options.share)
        if "hints" in saved and "hints" in trained:
            hints = blend(saved["hints"], trained["hints"], options.share)
    elif options.how == "add":
        others = [torch.load(path, weights_only=True)["model"] for path in (options.trained, options.before)]
        state = add(state, *others)
    else:
        old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (options.old, options.new))
        config, state = retoken(config, state, old, new)
    grown = {"config": asdict(config), "model": state} | ({"hints": hints} if hints else {})
    torch.save(grown, options.target)
    print(f"{sum(value.numel() for value in state.values())} parameters in {options.target}: {config}")


if __name__ == "__main__":
    main()
