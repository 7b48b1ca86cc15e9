"""Refinements over a real WebSocket, by tokens and by characters, from services that keep the protocol or lie."""

from __future__ import annotations

import pytest

from device_sdk import Finished, HybridClient, Mode, Refined, SplitSettings, SyncHybridClient, Token
from device_sdk.report import Guard, GuardDecision, Report
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from speed_controller.settings import PaceSettings
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.lying import lying_service
from wire_protocol.messages import Accepted, Generate, Refinement

SPLIT = SplitSettings(grant=12, max_grant=12, pace=PaceSettings(mode="off"))
TOKENIZER = ScriptedTokenizer()
IDS = TOKENIZER.render_chat([{"role": "user", "content": PROMPT}])
SENTENCE = "Tell me about the pump at the north gate, 東京 and the café. "


def phone(**model: object) -> ScriptedEngine:
    """Slow enough that a refinement comes while it reads its first chunk."""
    return ScriptedEngine(delay=per_token(0.004), **model)  # type: ignore[arg-type]


class Service:
    """Sends these refinements, and nothing else."""

    def __init__(self, *refinements: dict[str, object]) -> None:
        self.refinements = refinements
        self.asked: list[Generate] = []

    async def __call__(self, socket, codec, message: Generate) -> None:
        self.asked.append(message)
        await socket.send(codec.encode(Accepted(message.id, 100)))
        for fields in self.refinements:
            await socket.send(codec.encode(Refinement(message.id, **{"stage": 1, "final": True, **fields})))


async def run(client: HybridClient, **options: object) -> tuple[list[object], Report]:
    options = {"refine": 0.25, "max_tokens": 8, **options}
    events = [event async for event in client.stream(PROMPT, **options)]  # type: ignore[arg-type]
    assert isinstance(events[-1], Finished)
    return events, events[-1].answer.report


def read_by(device: ScriptedEngine, since: int, prompt_tokens: int) -> list[int]:
    """The first tokens that went into the device's engine."""
    fed = [token for chunks in device.passes[since:] for token in chunks[0].tokens]
    return fed[:prompt_tokens]


async def test_the_device_reads_what_the_service_keeps_in_tokens() -> None:
    keep = ((0, 20), (90, 120), (len(IDS) - 40, len(IDS)))
    service = Service({"unit": "tokens", "keep": keep})
    device = phone()
    split = SplitSettings(grant=12, max_grant=12, pace=SPLIT.pace, chunk=16)
    async with lying_service(service) as url, HybridClient(device=device, cloud=url, split=split) as client:
        since = len(device.passes)
        events, report = await run(client)
    (refined,) = [event for event in events if isinstance(event, Refined)]
    wish = service.asked[0].refine
    kept = {position for start, end in (*keep, *wish.protected) for position in range(start, end)}
    count = round(report.prompt_kept * len(IDS))
    read = read_by(device, since, count)
    # Everything up to where it was when the refinement came, and from there on what is kept.
    assert any(read == [IDS[p] for p in range(len(IDS)) if p < cursor or p in kept] for cursor in range(len(IDS)))
    assert count < len(IDS)
    assert refined.kept == report.prompt_kept
    assert report.guard == refined.guard == Guard("passed")
    assert report.refinement_stages == 1
    assert 0 < report.refinement_ms < 60_000
    assert wish.keep_ratio == 0.25
    assert wish.protected[-1][1] == len(IDS)


async def test_where_text_travels_characters_become_the_devices_own_tokens() -> None:
    """The service names the third sentence; the device's tokens of it are others than the service's."""
    start = 2 * len(SENTENCE)
    service = Service({"unit": "characters", "keep": ((start, start + len(SENTENCE)),)})
    device = phone(tokenizer=ScriptedTokenizer(words=(" pump", " gate, 東", "京 and")))
    ids = device.tokenizer.render_chat([{"role": "user", "content": PROMPT}])
    split = SplitSettings(grant=12, max_grant=12, pace=SPLIT.pace, chunk=8)
    async with lying_service(service, "text") as url, HybridClient(device=device, cloud=url, split=split) as client:
        since = len(device.passes)
        _, report = await run(client)
    count = round(report.prompt_kept * len(ids))
    read = b"".join(map(device.tokenizer.token_bytes, read_by(device, since, count))).decode()
    assert count < 0.75 * len(ids)
    assert SENTENCE in read
    assert read.endswith("café. \nassistant\n")
    protected = service.asked[0].refine.protected
    assert all(0 <= start < end <= len(PROMPT) for start, end in protected)
    assert protected[-1][1] == len(PROMPT)


@pytest.mark.parametrize("decision", ["flat", "short", "failed", "unavailable"])
async def test_where_the_guard_keeps_all_the_device_reads_all(own_answer, decision: GuardDecision) -> None:
    """Even where the spans say otherwise."""
    service = Service({"unit": "tokens", "keep": ((0, 5),), "guard": decision, "detail": "because"})
    async with lying_service(service) as url, HybridClient(device=phone(), cloud=url, split=SPLIT) as client:
        events, report = await run(client)
    assert report.guard == Guard(decision, "because")
    assert report.prompt_kept == 1.0
    assert events[-1].answer.token_ids == own_answer(count=8)


@pytest.mark.parametrize(
    ("fields", "travel", "complaint"),
    [
        ({"unit": "characters", "keep": ((0, 5),)}, "ids", "in characters; expected tokens"),
        ({"unit": "tokens", "keep": ((0, 5),)}, "text", "in tokens; expected characters"),
        ({"unit": "tokens", "keep": ((0, 5), (7, 10**6))}, "ids", "the span 7…1000000"),
        ({"unit": "characters", "keep": ((0, 10**6),)}, "text", "refinement beyond the prompt"),
        ({"unit": "tokens", "keep": ()}, "ids", "keeps nothing"),
        ({"unit": "characters", "keep": ()}, "text", "keeps nothing"),
    ],
)
async def test_a_refinement_that_makes_no_sense_is_named_and_changes_nothing(
    own_answer, fields, travel, complaint: str
) -> None:
    service = Service(fields)
    async with lying_service(service, travel) as url, HybridClient(device=phone(), cloud=url, split=SPLIT) as client:
        events, report = await run(client)
    assert complaint in report.notices[0]
    assert report.notices[0].startswith("refinement_ignored: ")
    assert (report.prompt_kept, report.refinement_ms, report.guard) == (1.0, None, None)
    assert events[-1].answer.token_ids == own_answer(count=8)


@pytest.mark.parametrize(
    "options", [{"refine": False}, {"mode": Mode.PREFER_IN_CLOUD}, {"refine": None}], ids=["no", "mode", "short"]
)
async def test_nothing_is_asked_where_nothing_is_wanted(serve, own_answer, options) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(device=phone(), cloud=running.url, split=SPLIT) as client:
        events, report = await run(client, **options)
    assert not [event for event in events if isinstance(event, Refined)]
    assert (report.prompt_kept, report.refinement_stages) == (1.0, 0)
    assert events[-1].answer.token_ids == own_answer(count=8)


def test_the_sync_twin_refines_as_well(serve) -> None:
    running = serve(ScriptedEngine())
    with SyncHybridClient(device=phone(), cloud=running.url, split=SPLIT) as client:
        events = list(client.stream(PROMPT, max_tokens=24, refine=0.5))
        answer = client.generate(PROMPT, max_tokens=24, refine=0.5)
    assert [event for event in events if isinstance(event, Refined)]
    assert [event for event in events if isinstance(event, Token)]
    assert answer.report.guard is not None
    assert answer.report.refinement_stages >= 1
