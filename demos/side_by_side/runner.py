"""Runs the demo: starts both sides, asks each question in the three modes, collects what came of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.side_by_side.errors import CloudError, DemoError, UsageError
from demos.side_by_side.hardware import CLOUD_THREADS, SlowerThanEmulated, load_device, slower_than_emulated
from demos.side_by_side.runs import MODES, Run, Trio
from device_sdk.client import HybridClient
from device_sdk.errors import ConfigurationError, GenerationFailedError, PdDeviceError, PromptTooLongError
from device_sdk.events import Cancelled, Failed, Finished, HandOver, Notice, Progress, Refined, Token
from device_sdk.report import Source
from device_sdk.settings import Mode
from device_sdk.testing import LinkProxy
from model_runtime.errors import BadInputError
from model_runtime.sampling import SamplingParams
from speed_controller import PaceSettings, SplitSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.side_by_side.hardware import Hardware
    from demos.side_by_side.options import Options
    from demos.side_by_side.questions import Question
    from demos.side_by_side.screen import Screen, View
    from device_sdk.report import Answer


@dataclass(frozen=True, slots=True)
class _Stage:
    """Everything that runs while questions are asked."""

    client: HybridClient
    cloud: CloudProcess
    options: Options
    screen: Screen


@dataclass(frozen=True, slots=True)
class Outcome:
    trios: list[Trio]
    slower: SlowerThanEmulated


async def run_demo(options: Options, hardware: Hardware, questions: Sequence[Question], screen: Screen) -> Outcome:
    """One trio for each question. Raises DemoError. Whatever happens, the cloud process is gone afterwards."""
    async with AsyncExitStack() as stack:
        screen.say("starting the cloud service and loading the device's model …")
        engine = await asyncio.to_thread(load_device, hardware, options.seed)
        stack.callback(engine.shutdown)
        settings = _cloud_settings(options, hardware)
        cloud = await stack.enter_async_context(CloudProcess(settings))
        link = await stack.enter_async_context(LinkProxy("127.0.0.1", cloud.port, hardware.link, seed=options.seed))
        client = await stack.enter_async_context(
            HybridClient(device=engine, cloud=link.url(), split=_split_settings(options))
        )
        stage = _Stage(client, cloud, options, screen)
        await _warm_up(stage)
        trios = []
        for number, question in enumerate(questions, start=1):
            if not cloud.running:
                screen.say("starting the cloud service again …")
                await cloud.start()
                await _warm_up(stage)
            screen.question(number, len(questions), question)
            runs = [await _ask(stage, question, mode) for mode in MODES]
            trios.append(Trio(*runs))
        return Outcome(trios, slower_than_emulated(engine, settings.log_file))


def _cloud_settings(options: Options, hardware: Hardware) -> CloudSettings:
    return CloudSettings(
        model=hardware.cloud_model,
        log_file=options.out / "cloud.log",
        engine=hardware.engine,
        emulate=None if hardware.cloud_profile is None else options.cloud_profile,
        threads=CLOUD_THREADS,
    )


def _split_settings(options: Options) -> SplitSettings:
    pace = options.pace_ms / 1000
    defaults = PaceSettings()
    settings = PaceSettings(
        pace=pace, pace_min=min(defaults.pace_min, pace), pace_max=max(defaults.pace_max, 1.5 * pace)
    )
    return SplitSettings(grant=options.grant, pace=settings, max_grant=max(256, options.grant or 0))


async def _warm_up(stage: _Stage) -> None:
    """One token in each mode, so that no run pays for what is paid once: connections, first passes, estimates."""
    for mode in MODES:
        try:
            await stage.client.generate("Good morning.", max_tokens=2, mode=mode)
        except (PdDeviceError, BadInputError) as error:
            raise _failure(error) from None


async def _ask(stage: _Stage, question: Question, mode: Mode) -> Run:
    options = stage.options
    sampling = SamplingParams(temperature=options.temperature, seed=options.seed)
    with stage.screen.answer(mode) as view:
        try:
            answer = await _stream(stage, question, mode, sampling, view)
        except (PdDeviceError, BadInputError) as error:
            raise _failure(error) from None
        run = Run(question, mode, answer)
        view.done(run)
    return run


async def _stream(stage: _Stage, question: Question, mode: Mode, sampling: SamplingParams, view: View) -> Answer:
    options = stage.options
    kill_after = options.kill_cloud_after if mode is Mode.SPLIT else None
    from_cloud = 0
    events = stage.client.stream(
        question.messages, max_tokens=options.max_tokens, sampling=sampling, mode=mode, refine=options.refine
    )
    async for event in events:
        match event:
            case Token(source=source):
                view.token(event)
                from_cloud += source is Source.CLOUD
                if kill_after is not None and from_cloud == kill_after:
                    kill_after = None
                    await stage.cloud.kill()
                    view.note(f"the cloud process was killed after {from_cloud} tokens")
            case Notice(message=message):
                view.note(message)
            case HandOver() | Refined() | Progress():
                pass
            case Finished(answer=answer):
                if kill_after is not None:
                    view.note(f"the cloud gave {from_cloud} tokens, so it was not killed after {kill_after}")
                return answer
            case Failed(error=error):
                raise error
            case Cancelled():
                raise DemoError("the answer was cancelled")
    raise AssertionError("a stream ended without a terminal event")


def _failure(error: PdDeviceError | BadInputError) -> DemoError:
    """One line with its causes."""
    if isinstance(error, ConfigurationError | PromptTooLongError | BadInputError):
        return UsageError(str(error))
    causes = error.causes if isinstance(error, GenerationFailedError) else ()
    return CloudError("; ".join(dict.fromkeys([str(error), *map(str, causes)])))
