"""The picture of a run: answers and evidence by share kept, and the grant by prompt length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.refining.quality import OURS, RATIOS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.refining.effect import Effect
    from benchmarks.refining.tables import Cells


def draw(found: Cells, effects: Sequence[Effect], path: Path) -> None:
    """PNG or SVG, by the file's name."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    panels = list(dict.fromkeys((source, kind) for source, kind, _, _ in found))
    figure, axes = plt.subplots(2, len(panels) + 1, figsize=(3.6 * (len(panels) + 1), 6.4), layout="constrained")
    for column, (source, kind) in enumerate(panels):
        methods = dict.fromkeys(method for where, what, _, method in found if (where, what) == (source, kind))
        for method in methods:
            if method == "full":
                continue
            row = [found[source, kind, ratio, method] for ratio in RATIOS]
            style = {"marker": "o", "linewidth": 2.2 if method == OURS else 1.0, "label": method}
            shares = [cell.kept for cell in row]
            axes[0][column].plot(shares, [cell.right for cell in row], **style)
            axes[1][column].plot(shares, [cell.recall for cell in row], **style)
        whole = found[source, kind, 1.0, "full"]
        axes[0][column].axhline(whole.right, color="grey", linestyle=":", label="full prompt")
        axes[0][column].set(title=f"{source}, {kind}", ylabel="answers right", ylim=(-0.03, 1.03))
        axes[1][column].set(xlabel="share of the prompt kept", ylabel="evidence kept", ylim=(-0.03, 1.03))
    for ratio in dict.fromkeys(effect.ratio for effect in effects):
        rows = [effect for effect in effects if effect.ratio == ratio]
        lengths = [effect.length for effect in rows]
        axes[0][-1].plot(lengths, [effect.refined.used for effect in rows], marker="o", label=f"keep {ratio:.0%}")
        axes[1][-1].plot(lengths, [effect.refined.ready for effect in rows], marker="o", label=f"keep {ratio:.0%}")
    lengths = list(dict.fromkeys(effect.length for effect in effects))
    whole_prompts = {effect.length: effect.without for effect in effects}
    axes[0][-1].plot(lengths, [whole_prompts[length].used for length in lengths], color="grey", label="full prompt")
    axes[1][-1].plot(lengths, [whole_prompts[length].ready for length in lengths], color="grey", label="full prompt")
    axes[0][-1].set(title="emulated phone, GPU, 5G", ylabel="grant, tokens")
    axes[1][-1].set(xlabel="prompt tokens", ylabel="device ready, s")
    axes[0][0].legend(fontsize="x-small")
    axes[0][-1].legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
