"""Train a bundled model to a deadline, from nothing or from another checkpoint; resumes where it stopped.

python -m demos.training.train TOKENIZER_FOLDER CHECKPOINT --layers 5 --minutes 60
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import time
from dataclasses import asdict
from pathlib import Path
from random import Random

import torch
import torch.distributed
import torch.nn.functional as F

from demos.training.architecture import DecoderConfig
from demos.training.batches import Batch, BatchMaker, Encoder, Mix, Shape
from demos.training.chat import FORMATS
from demos.training.model import Decoder, Hints, question_mask
from demos.training.vocabulary import Split

SHAPES = {
    128: Shape(128, 256), 256: Shape(256, 384), 512: Shape(512, 512), 1024: Shape(1024, 640),
    2048: Shape(2048, 1024), 4352: Shape(4352, 1536),
}  # fmt: skip
# From which share of the run on, which document lengths are drawn, and how often.
PLANS: dict[str, list[tuple[float, dict[int, float]]]] = {
    "scratch": [
        (0.00, {128: 1.0}),
        (0.20, {128: 0.5, 256: 0.5}),
        (0.45, {128: 0.3, 256: 0.3, 512: 0.4}),
        (0.60, {128: 0.15, 256: 0.25, 512: 0.35, 1024: 0.25}),
        (0.80, {256: 0.2, 512: 0.3, 1024: 0.3, 2048: 0.15, 4352: 0.05}),
    ],
    "continue": [
        (0.00, {256: 0.4, 512: 0.4, 1024: 0.2}),
        (0.35, {512: 0.4, 1024: 0.4, 2048: 0.2}),
        (0.75, {512: 0.25, 1024: 0.35, 2048: 0.25, 4352: 0.15}),
    ],
    "refined": [(0.00, {128: 0.15, 256: 0.25, 512: 0.20, 1024: 0.12, 2048: 0.10, 4352: 0.18})],
    "long": [(0.00, {512: 0.12, 1024: 0.25, 2048: 0.33, 4352: 0.30})],
}
# Documents up to this long are mostly what is left of longer ones, in the plan of that name.
REFINED = 1024
HINT = 0.3
# By how much, at most, attention is blunter in documents of a length than in the longest.
BLUNT = {128: 0.3, 256: 0.3, 512: 0.3, 1024: 0.3, 2048: 0.2}
# Positions are stretched as far as the context goes, less some questions and answers.
REACH = 4400
# Heads of hints that begin anew behind a trained body learn by themselves first: their errors would pull it apart.
HEADS_ALONE = 100


def shares_at(plan: str, progress: float) -> dict[int, float]:
    return [shares for start, shares in PLANS[plan] if start <= progress][-1]


def produce(queues, progress, options) -> None:
    """Batches for all ranks: of one shape at a time, so that no rank waits for another's longer document."""
    os.nice(5)
    maker = BatchMaker(Encoder(options.tokenizer / "tokenizer.json", 12, options.seed), FORMATS[options.format], REACH)
    rng = Random(f"{options.seed}/{time.time() if options.resume else 0}")
    while True:
        done = progress.value
        shares = shares_at(options.plan, done)
        shape = SHAPES[rng.choices(list(shares), list(shares.values()))[0]]
        rows = max(1, options.batch_tokens // shape.total)
        young = options.plan == "scratch" and done < options.young
        mix = Mix(0.10, 0.0, 0.0) if young else Mix(0.03, 0.6, 0.5, reworded=0.6, alike=0.7, brief=0.7)
        if options.plan == "refined" and shape.document <= REFINED:
            mix = dataclasses.replace(mix, alike=0.3, brief=0.5, refined=0.8)
        for queue in queues:
            queue.put((shape, maker.make(rng, shape, rows, "train", mix)))


def tensors(batch: Batch, document: int) -> tuple[torch.Tensor, ...]:
    mask = question_mask(torch.from_numpy(batch.document_length), torch.from_numpy(batch.branch), document)
    return torch.from_numpy(batch.ids), torch.from_numpy(batch.positions), mask


def loss_of(
    model: Decoder, hints: Hints | None, shape: Shape, batch: Batch, generator: torch.Generator, alone: bool = False
) -> tuple[torch.Tensor, float, float]:
    """The loss, and for the log the answers' and the hints' part of it. `alone`: hints teach their heads only."""
    ids, positions, mask = tensors(batch, shape.document)
    # Attention thins out with length: short documents are read with blunter attention than there will be.
    blunt = BLUNT.get(shape.document, 0.0) * float(torch.rand((), generator=generator))
    hidden, outputs = model.hidden(ids, positions, mask, shape.document, 1.0 - blunt)
    weights = torch.from_numpy(batch.weights)
    rows, columns = torch.nonzero(weights, as_tuple=True)
    columns = columns + shape.document
    weight = weights[weights > 0]
    # A sample of the document's own tokens: a little language modelling shapes names out of their pieces.
    lengths = torch.from_numpy(batch.document_length)
    picked = torch.rand(len(ids), shape.document - 1, generator=generator) < 0.12
    picked &= torch.arange(shape.document - 1)[None] < (lengths - 1)[:, None]
    more_rows, more_columns = torch.nonzero(picked, as_tuple=True)
    rows, columns = torch.cat((rows, more_rows)), torch.cat((columns, more_columns))
    weight = torch.cat((weight, torch.full((len(more_rows),), 0.05)))
    each = F.cross_entropy(model.logits(hidden[rows, columns]).float(), ids[rows, columns + 1], reduction="none")
    total = (each * weight).sum() / weight.sum()
    answers = weight >= 1.0
    hinted = 0.0
    if hints is not None:
        labels = []
        for array, share in ((batch.line, 0.1), (batch.previous, 0.4), (batch.first, 0.7)):
            kept = torch.rand(array.shape, generator=generator) < share
            labels.append(torch.where(kept, torch.from_numpy(array), -1))
        embed = model.embed.weight
        if alone:
            outputs, embed = [output.detach() for output in outputs], embed.detach()
        extra = hints.loss(outputs, labels, embed)
        total = total + HINT * extra
        hinted = float(extra.detach())
    return total, float(each[answers].detach().mean()) if answers.any() else 0.0, hinted


@torch.no_grad()
def accuracy(
    model: Decoder, maker: BatchMaker, seed: int, documents: dict[int, int], split: Split = "eval"
) -> dict[str, str]:
    """Exact match on held-out documents: greedy decoding is right where every answer token is the argmax."""
    found: dict[str, str] = {}
    for length, count in documents.items():
        shape, rng = SHAPES[length], Random(f"eval/{seed}/{length}")
        right: dict[str, list[bool]] = {}
        first: dict[str, list[bool]] = {}
        for _ in range(count):
            batch = maker.make(rng, shape, 1, split)
            ids, positions, mask = tensors(batch, shape.document)
            hidden, _ = model.hidden(ids, positions, mask, shape.document)
            for row, start, end, kind in batch.answers:
                at = slice(shape.document + start, shape.document + end)
                guess = model.logits(hidden[row, at]).argmax(-1)
                gold = ids[row, shape.document + start + 1 : shape.document + end + 1]
                right.setdefault(kind, []).append(bool((guess == gold).all()))
                first.setdefault(kind, []).append(bool(guess[0] == gold[0]))
        found[str(length)] = " ".join(
            f"{kind}={100 * sum(values) / len(values):.0f}({100 * sum(first[kind]) / len(values):.0f})/{len(values)}"
            for kind, values in sorted(right.items())
        )
    return found


def optimizers(model: Decoder, hints: Hints, options: argparse.Namespace) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)] + list(hints.parameters())
    if options.optimizer == "adamw":
        return [torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)]
    return [
        torch.optim.Muon(matrices, lr=options.rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def average_gradients(parameters: list[torch.nn.Parameter], ranks: int) -> None:
    """Every rank sends every gradient: a hint that one rank's rows had no label for counts as zero there."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= ranks
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--format", choices=sorted(FORMATS), default="chatml")
    parser.add_argument("--plan", choices=sorted(PLANS), default="scratch")
    parser.add_argument("--minutes", type=float, default=60, help="from now to the end of the run")
    parser.add_argument("--stop-after", type=float, default=0, help="stop after so many minutes, resumable")
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights (not optimizer) to start from")
    parser.add_argument("--begin-at", type=float, default=0.0, help="the progress to begin at, of 1")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay-from", type=float, default=0.6)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of each rank")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2, help="processes, one core each: faster than threads")
    parser.add_argument("--port", type=int, default=29411)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--bfloat16", action="store_true", help="twice as fast with AVX-512 BF16, ten times slower without"
    )
    parser.add_argument("--young", type=float, default=0.3, help="until then, words whole and positions plain")
    parser.add_argument("--hints", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report-every", type=float, default=120)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--feed-forward", type=int, default=320)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    progress = context.Value("d", 0.0)
    queues = [context.Queue(6) for _ in range(options.ranks)]
    others = [context.Process(target=produce, args=(queues, progress, options), daemon=True)]
    others += [
        context.Process(target=work, args=(rank, queues[rank], progress, options), daemon=True)
        for rank in range(1, options.ranks)
    ]
    for process in others:
        process.start()
    work(0, queues[0], progress, options)
    for process in others[1:]:
        process.join(30)
    others[0].terminate()


def work(rank: int, queue, progress, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    if options.ranks > 1:
        # Ranks wait for one another: two on one core would halve both.
        os.sched_setaffinity(0, {rank % os.cpu_count()})
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("medium")

    chat = FORMATS[options.format]
    encoder = Encoder(options.tokenizer / "tokenizer.json", 0, options.seed)
    maker = BatchMaker(encoder, chat, REACH)
    source = options.checkpoint if options.resume else options.start
    saved = torch.load(source, weights_only=True) if source else None
    config = (
        DecoderConfig(**saved["config"])
        if saved
        else DecoderConfig(
            encoder.whole.get_vocab_size(), options.width, options.layers, options.heads, options.kv_heads,
            options.feed_forward,
        )
    )  # fmt: skip
    model, hints = Decoder(config), Hints(config)
    if saved:
        model.load_state_dict(saved["model"])
        if "hints" in saved:
            hints.load_state_dict(saved["hints"], strict=False)
    optimizing = optimizers(model, hints, options)
    heads_alone = HEADS_ALONE if saved and "hints" not in saved else 0
    step, tokens, progress_before, seconds_before = 0, 0, options.begin_at, 0.0
    if options.resume:
        for optimizer, state in zip(optimizing, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, tokens = saved["step"], saved["tokens"]
        progress_before, seconds_before = saved["progress"], saved["seconds"]
    if rank == 0:
        print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), **asdict(config)}), flush=True)

    if options.ranks > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{options.port}", rank=rank, world_size=options.ranks
        )
    if options.compile:
        torch._dynamo.config.recompile_limit = 64
        for block in model.blocks:
            block.compile(dynamic=False)

    generator = torch.Generator().manual_seed(options.seed + rank)

    def save() -> None:
        state = {
            "config": asdict(config), "model": model.state_dict(), "hints": hints.state_dict(),
            "step": step, "tokens": tokens, "progress": progress.value, "seconds": seconds_before + time.time() - began,
            "optimizers": [optimizer.state_dict() for optimizer in optimizing],
        }  # fmt: skip
        partial = options.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(options.checkpoint)

    began = reported = time.time()
    shown, losses, hint_losses, waited = tokens, [], [], 0.0
    while True:
        elapsed = time.time() - began
        done = progress_before + (1 - progress_before) * min(1.0, elapsed / (options.minutes * 60))
        last = done >= 1 or bool(options.stop_after and elapsed > options.stop_after * 60)
        if options.ranks > 1:
            # One clock for all: rank 0's.
            word = torch.tensor([done, float(last)])
            torch.distributed.broadcast(word, 0)
            done, last = float(word[0]), bool(word[1])
        progress.value = done
        if rank == 0 and (last or time.time() - reported > options.report_every):
            spent = time.time() - reported
            model.eval()
            sizes = {512: 6, 1024: 3} | ({2048: 2, 4352: 1} if last else {})
            # Measured rarely, on shapes of its own: compiling those would cost more than it saves.
            torch.compiler.set_stance("force_eager")
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                result = accuracy(model, maker, options.seed, sizes)
            torch.compiler.set_stance("default")
            model.train()
            recent = sum(losses) / max(1, len(losses))
            print(
                f"{time.strftime('%H:%M:%S')} step {step} progress {done:.3f} tokens {tokens / 1e6:.2f}M "
                f"{(tokens - shown) / spent:.0f} tok/s waited {waited:.0f}s answers {recent:.3f} "
                f"hints {sum(hint_losses) / max(1, len(hint_losses)):.3f}", flush=True,
            )  # fmt: skip
            for length, line in result.items():
                print(f"    {length}: {line}", flush=True)
            save()
            reported, shown, losses, hint_losses, waited = time.time(), tokens, [], [], 0.0
        if last:
            break
        asked = time.time()
        shape, batch = queue.get()
        waited += time.time() - asked
        warm = min(1.0, (step + 1) / 60)
        cool = min(1.0, max(0.02, (1 - done) / (1 - options.decay_from)))
        for optimizer in optimizing:
            for group in optimizer.param_groups:
                group["lr"] = options.rate * warm * cool
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            alone = step < heads_alone
            loss, answers, hinted = loss_of(model, hints if options.hints else None, shape, batch, generator, alone)
        loss.backward()
        if options.ranks > 1:
            average_gradients([*model.parameters(), *hints.parameters()], options.ranks)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizing:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(answers)
        hint_losses.append(hinted)
        step += 1
        tokens += batch.ids.size * options.ranks


if __name__ == "__main__":
    main()
