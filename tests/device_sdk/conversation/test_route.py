"""Who answers, and what the report says of why."""

from __future__ import annotations

import pytest

from device_sdk import HybridClient, Mode, NoRefinementError
from device_sdk.conversation import Conversation
from device_sdk.route import Route, Work, route
from model_runtime.testing import ScriptedEngine
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings
from speed_controller.split_config import Bucket, SplitConfig
from speed_controller.split_config import Route as Planned
from tests.device_sdk.conftest import per_token
from tests.device_sdk.conversation.conftest import SYSTEM, UNPACED, alone, reads
from tests.device_sdk.lying import lying_service
from tests.device_sdk.test_refinement_service import Service

PHONE = DeviceForecast(prefill_rate=1_000.0, tpot=0.03)
PLAN = SplitConfig(
    (Bucket(up_to=100, route=Planned.DEVICE), Bucket(up_to=None, route=Planned.SPLIT, grant=20)), max_grant=64
)


def chosen(work: Work, split: SplitSettings | SplitConfig | None = None, cloud: float | None = 0.2) -> Route:
    return route(Mode.SPLIT, split or SplitSettings(), work, PHONE, CloudForecast(ttft=cloud))


@pytest.mark.parametrize(
    ("work", "mode", "reason"),
    [
        (Work(2_000, 2_000), Mode.SPLIT, "2,000 tokens are to be read"),
        (
            Work(2_000, 30),
            Mode.PREFER_ON_DEVICE,
            "the device is warm: 30 of 2,000 prompt tokens are new, read in 30 ms",
        ),
        (Work(2_000, 150), Mode.PREFER_ON_DEVICE, "the cloud's last first token took 200 ms"),
        (Work(2_000, 400), Mode.SPLIT, "400 tokens are to be read"),
        (Work(2_000, 30, gaps=900), Mode.SPLIT, "earlier turns left out 900 tokens of the prompt"),
        (
            Work(2_000, 30, room=1_500),
            Mode.SPLIT,
            "2,000 tokens are more than the device's context has room for (1,500)",
        ),
    ],
    ids=["cold", "warm", "before the cloud", "a long turn", "left out", "too long"],
)
def test_a_warm_device_with_a_short_turn_answers_alone(work: Work, mode: Mode, reason: str) -> None:
    found = chosen(work)
    assert found.mode is mode
    assert reason in found.reason


def test_an_unknown_cloud_is_asked_unless_the_device_begins_at_once() -> None:
    assert chosen(Work(2_000, 90), cloud=None).mode is Mode.PREFER_ON_DEVICE
    assert chosen(Work(2_000, 150), cloud=None).mode is Mode.SPLIT


def test_a_grant_that_was_set_and_a_mode_that_was_asked_for_stand() -> None:
    assert chosen(Work(2_000, 30), SplitSettings(grant=8)).mode is Mode.SPLIT
    asked = route(Mode.ONLY_IN_CLOUD, PLAN, Work(50, 50), PHONE, CloudForecast())
    assert (asked.mode, asked.reason) == (Mode.ONLY_IN_CLOUD, "ONLY_IN_CLOUD was asked for")


def test_a_plan_goes_by_what_is_left_to_read() -> None:
    cold = chosen(Work(2_000, 2_000), PLAN)
    assert cold.settings.grant is not None
    assert cold.reason == "the plan's route for prompts of any length is 'split', 2,000 tokens are to be read"
    warm = chosen(Work(2_000, 80), PLAN)
    assert warm.mode is Mode.PREFER_ON_DEVICE
    assert warm.reason == "the plan's route for prompts of up to 100 is 'device', 80 tokens are to be read"
    # What was left out may have to be read again, so all of it counts.
    assert chosen(Work(2_000, 80, gaps=500), PLAN).mode is Mode.SPLIT


async def test_the_second_turn_of_a_split_is_the_devices_own(serve) -> None:
    running = serve(ScriptedEngine())
    device = ScriptedEngine(delay=per_token(0.0005))
    async with HybridClient(device=device, cloud=running.url, split=UNPACED) as client:
        async with Conversation(client, system=SYSTEM) as conversation:
            first = await conversation.send("Who locked the gate?", max_tokens=30)
            assert (first.report.mode, first.report.reused_tokens) == (Mode.SPLIT, 0)
            await conversation.warm()
            second = await conversation.send("And the pump?", max_tokens=30)
            assert second.report.mode is Mode.PREFER_ON_DEVICE
            assert second.report.cloud_tokens == 0
            assert second.report.route_reason.startswith("the device is warm: ")
            assert second.token_ids == alone(conversation.messages[:-1], 30)
        plain = await client.generate("Who?", max_tokens=2, mode=Mode.ONLY_IN_CLOUD)
        assert plain.report.route_reason == "ONLY_IN_CLOUD was asked for"


async def test_a_conversation_longer_than_the_context_is_refined_to_fit_or_refused() -> None:
    long = "The crew met at the north gate. " * 40
    tokens = len(ScriptedEngine().tokenizer.render_chat([{"role": "user", "content": long}]))
    keep = ((0, 30), (tokens - 20, tokens))
    device = ScriptedEngine(context_length=tokens // 3, delay=per_token(0.002))
    answer_length = {"max_tokens": 12}
    async with (
        lying_service(Service({"unit": "tokens", "keep": keep})) as url,
        HybridClient(device=device, cloud=url, split=UNPACED) as client,
        Conversation(client, overflow="refine") as conversation,
    ):
        answer = await conversation.send(long, **answer_length)
        assert answer.report.device_tokens == 12  # the service refines, and says nothing
        assert answer.report.prompt_kept < 1 / 3
        assert "the cloud says which of them it reads" in answer.report.route_reason
        for options, says in (
            ({"mode": Mode.ONLY_ON_DEVICE}, "ONLY_ON_DEVICE refines nothing"),
            ({"refine": False}, "refine=False was asked for"),
        ):
            with pytest.raises(NoRefinementError, match=says):
                await conversation.send(long, **answer_length, **options)
        assert len(conversation.turns) == 1


async def test_a_service_that_does_not_refine_is_known_after_the_first_time(serve) -> None:
    long = "The crew met at the north gate. " * 40
    running = serve(ScriptedEngine(), refine="off")
    device = ScriptedEngine(context_length=150, delay=per_token(0.0005))
    async with (
        HybridClient(device=device, cloud=running.url, split=UNPACED) as client,
        Conversation(client, overflow="refine") as conversation,
    ):
        answer = await conversation.send(long, max_tokens=12)
        assert answer.token_ids == alone(conversation.messages[:-1], 12)
        assert (answer.report.device_tokens, answer.report.cloud_tokens) == (0, len(answer.token_ids))
        assert "the cloud keeps more of the prompt (unavailable)" in answer.report.notices[-1]
        with pytest.raises(NoRefinementError, match="does not refine"):
            await conversation.send("And the pump?", max_tokens=12)


async def test_after_a_refinement_the_next_turn_goes_on_where_it_needs_no_more() -> None:
    """The service keeps the same lines for both questions: what was read serves again, and the rest stays unread."""
    log = "The crew met at the north gate. " * 30
    device = ScriptedEngine(delay=per_token(0.002))
    tokens = len(device.tokenizer.render_chat([{"role": "user", "content": log}]))
    split = SplitSettings(grant=4, max_grant=4, pace=UNPACED.pace, chunk=16)
    async with (
        lying_service(Service({"unit": "tokens", "keep": ((0, 60), (tokens - 20, tokens))})) as url,
        HybridClient(device=device, cloud=url, split=split) as client,
        Conversation(client) as conversation,
    ):
        first = await conversation.send(log, max_tokens=8, refine=0.25)
        assert first.report.prompt_kept < 0.6
        before = len(device.passes)
        second = await conversation.send("And who locked the pump? " * 3, max_tokens=8, refine=0.25)
        assert "earlier turns left out" in second.report.route_reason
        assert second.report.reused_tokens == round(first.report.prompt_kept * first.report.prompt_tokens) + 7
        assert sum(reads(device, before)) < second.report.prompt_tokens - tokens + 10
        whole = await conversation.send("And now?", max_tokens=8, refine=False)
        assert whole.report.reused_tokens < second.report.reused_tokens
        assert whole.token_ids == alone(conversation.messages[:-1], 8)
