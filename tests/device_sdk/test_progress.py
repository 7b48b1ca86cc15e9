"""What a caller that asks for it is told while an answer is under way, and what it may highlight afterwards."""

from __future__ import annotations

from itertools import pairwise

from device_sdk import Finished, HybridClient, Mode, Progress, SplitSettings, Token
from model_runtime.testing import ScriptedEngine
from speed_controller.settings import PaceSettings
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.lying import lying_service
from tests.device_sdk.test_refinement_service import IDS, TOKENIZER, Service, phone, read_by

SPLIT = SplitSettings(grant=12, max_grant=12, pace=PaceSettings(mode="off"), chunk=16)


async def test_progress_comes_where_asked_for_never_goes_back_and_never_last() -> None:
    device = ScriptedEngine(delay=per_token(0.0002))
    async with HybridClient(device=device, mode=Mode.ONLY_ON_DEVICE, split=SPLIT) as client:
        events = [event async for event in client.stream(PROMPT, max_tokens=8, progress=True)]
        silent = [event async for event in client.stream(PROMPT, max_tokens=8)]
    told = [event for event in events if isinstance(event, Progress)]
    assert isinstance(events[-1], Finished)
    report = events[-1].answer.report
    assert {progress.prompt for progress in told} == {report.prompt_tokens}
    assert all(a.read <= b.read and a.arrived <= b.arrived and a != b for a, b in pairwise(told))
    # Several while it still reads the prompt.
    assert sum(0 < progress.read < report.prompt_tokens for progress in told) > 2
    shown = 0
    for event in events:
        shown += isinstance(event, Token)
        assert not isinstance(event, Progress) or event.arrived >= shown
    assert not [event for event in silent if isinstance(event, Progress)]


async def test_the_report_says_which_text_the_device_read() -> None:
    service = Service({"unit": "tokens", "keep": ((0, 20), (90, 120))})
    device = phone()
    async with lying_service(service) as url, HybridClient(device=device, cloud=url, split=SPLIT) as client:
        since = len(device.passes)
        refined = (await client.generate(PROMPT, max_tokens=8, refine=0.25)).report
        fed = read_by(device, since, round(refined.prompt_kept * len(IDS)))
        whole = (await client.generate(PROMPT, max_tokens=8, refine=False)).report
    assert {span.message for span in refined.prompt_read} == {0}
    text = "".join(PROMPT[span.start : span.stop] for span in refined.prompt_read)
    spelled = b"".join(TOKENIZER.token_bytes(token) for token in fed).decode(errors="replace")
    # What went into the engine, but for the template around it.
    assert text in spelled.replace("\n", "")
    assert 0 < len(text) < len(PROMPT)
    assert whole.prompt_read == ()
