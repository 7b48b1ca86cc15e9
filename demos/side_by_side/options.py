"""What the caller may choose, and the words of `pd-demo --help`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.defaults import CLOUD_PROFILE, DEVICE_PROFILE, LINK, PACE_MS
from device_sdk.testing import LINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_runtime.hub_files import EngineName

_DESCRIPTION = """\
One answer, started in the cloud and finished on the device, side by side with either alone.

Starts a real cloud service on this machine, connects to it through an emulated network, and answers questions over
long documents three times each: on the device, in the cloud, and split between them. Shows the answers as they
stream (blue: from the cloud, orange: from the device), then a table, and draws a timeline into --out.

The hardware is emulated: passes of small real models are stretched to published rates of a phone and of a datacentre
GPU (the sources are printed). Tokens, sockets, the hand-over and all times are real. --raw leaves this machine's own
speed.
"""
_EPILOG = """\
exit codes: 0 done, 2 an option, file or package is not usable, 3 the cloud process failed, 130 interrupted
"""

#: The bundled models are right about some questions only (their cards say how many). The first seed with which both are
#: right about all: so that what is shown is the hand-over and not the models' mistakes.
DEFAULT_SEED = 0


@dataclass(frozen=True, slots=True)
class Options:
    """As parsed; the meaning of each is its help text."""

    quick: bool
    json: bool
    raw: bool
    device_model: str | None
    cloud_model: str | None
    same_model: bool
    engine: EngineName
    device_profile: str
    cloud_profile: str
    link: str | None
    prompt_file: Path | None
    question: str | None
    max_tokens: int
    seed: int
    temperature: float
    grant: int | None
    #: As `HybridClient.stream` takes it: None as usual, False not, a keep ratio.
    refine: bool | float | None
    pace_ms: float
    kill_cloud_after: int | None
    out: Path


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Exits with code 2 and a usage line when the options cannot be."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.same_model and given.device_model:
        parser.error("--same-model and --device-model exclude each other")
    # Equal tokens can be promised only where both sides read the same prompt.
    if given.same_model and given.refine is None:
        given.refine = False
    return Options(**vars(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pd-demo", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two questions, at most 45 seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")

    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--prompt-file", type=Path, metavar="FILE", help="your own document (UTF-8 text)")
    asked.add_argument("--question", metavar="TEXT", help="your own question, about that document or a bundled one")
    asked.add_argument("--max-tokens", type=_at_least(1), default=512, metavar="N", help="longest answer (%(default)s)")
    asked.add_argument(
        "--seed",
        type=_at_least(0),
        default=DEFAULT_SEED,
        help="of questions, sampling and jitter (%(default)s: the bundled models are right about all)",
    )
    asked.add_argument("--temperature", type=_temperature, default=0.0, help="0 is greedy (%(default)s)")

    models = parser.add_argument_group("models: a GGUF file, an ONNX file or folder, or hf://owner/name[/file]")
    models.add_argument("--device-model", metavar="PATH", help="by default the bundled small one")
    models.add_argument("--cloud-model", metavar="PATH", help="by default the bundled larger one")
    models.add_argument(
        "--same-model",
        action="store_true",
        help="the cloud's model on the device, too: equal tokens (implies --no-refine, unless --refine is given)",
    )
    models.add_argument(
        "--engine",
        choices=("auto", "onnx", "llama"),
        default="auto",
        help="by default by the file, bundled ones on ONNX",
    )

    hardware = parser.add_argument_group("hardware and network")
    hardware.add_argument("--raw", action="store_true", help="no emulation: this machine's own speed, loopback")
    hardware.add_argument(
        "--device-profile", default=DEVICE_PROFILE, metavar="NAME", help="emulated device (%(default)s)"
    )
    hardware.add_argument("--cloud-profile", default=CLOUD_PROFILE, metavar="NAME", help="emulated GPU (%(default)s)")
    hardware.add_argument("--link", choices=sorted(LINKS), help=f"emulated network ({LINK}; with --raw loopback)")

    split = parser.add_argument_group("the split")
    split.add_argument("--grant", type=_at_least(0), metavar="K", help="tokens from the cloud; by default as needed")
    refine = split.add_mutually_exclusive_group()
    refine.add_argument(
        "--refine",
        type=_share,
        metavar="RATIO",
        help="share of the prompt that the device reads at most, as the cloud sees it (0.5, from 512 tokens on)",
    )
    refine.add_argument(
        "--no-refine", dest="refine", action="store_false", default=None, help="the device reads the whole prompt"
    )
    split.add_argument("--pace-ms", type=_pace, default=PACE_MS, metavar="MS", help="even pace to show (%(default)s)")
    split.add_argument(
        "--kill-cloud-after", type=_at_least(1), metavar="N", help="kill the cloud process once it gave N tokens"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="for pictures and log (%(default)s)"
    )
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return parse


def _temperature(text: str) -> float:
    return _number(text, 0.0, 100.0)


def _pace(text: str) -> float:
    return _number(text, 1.0, 10_000.0)


def _share(text: str) -> float:
    return _number(text, 0.01, 1.0)


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
    return value
