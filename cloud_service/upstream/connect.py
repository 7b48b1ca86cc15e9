"""From settings to a backend whose engines are elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cloud_service.backend import Opened
from cloud_service.refinement.factory import build_refinery
from cloud_service.settings import Settings
from cloud_service.upstream.backend import UpstreamBackend
from cloud_service.upstream.pool import Pool
from cloud_service.upstream.prompts import PromptText
from cloud_service.upstream.server import BadRequestError, BrokenError, Server
from model_runtime.core import Capabilities, Engine, EngineInfo
from model_runtime.errors import ModelAccessError
from model_runtime.hub_files import is_hub_spec, parse_spec
from model_runtime.loading import load_engine
from model_runtime.tokenizers import HFTokenizer, load_tokenizer

#: What is fetched of a model that runs elsewhere.
_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template*", "config.json", "generation_config.json"]


class UpstreamError(Exception):
    """The upstreams cannot be used as they are set: the message says what to do."""


async def connect(settings: Settings) -> Opened:
    """Waits until an upstream is up. Raises UpstreamError, LoadError for the tokenizer, RefinementError,
    CalibrationError."""
    tokenizer = await asyncio.to_thread(_tokenizer, settings.model)
    prompts = PromptText(tokenizer)
    key = None if settings.upstream_key is None else settings.upstream_key.get_secret_value()
    patience = settings.upstream_timeout_ms / 1000
    servers = [Server(url, key, patience) for url in settings.upstream_urls]
    pool = Pool(servers, prompts, settings.upstream_model)
    try:
        await pool.open()
        info = _info(settings, tokenizer, pool)
        refinery = await asyncio.to_thread(
            build_refinery,
            settings.refine,
            settings.model,
            info,
            calibrated=settings.refine_calibration,
            scorer_model=settings.refine_model,
            load_scorer=lambda spec: _scorer(spec, settings.threads),
        )
    except (BrokenError, BadRequestError) as error:
        await pool.close()
        raise UpstreamError(str(error)) from None
    except BaseException:
        await pool.close()
        raise
    return Opened(UpstreamBackend(pool, prompts, per_server=settings.upstream_generations), info, tokenizer, refinery)


def _scorer(spec: str, threads: int | None) -> Engine:
    return load_engine(spec, max_sequences=1, threads=threads, tap_layers="all")


def _tokenizer(model: str) -> HFTokenizer:
    if not is_hub_spec(model):
        return load_tokenizer(Path(model))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    spec = parse_spec(model)
    try:
        folder = snapshot_download(spec.repository, revision=spec.revision, allow_patterns=_FILES)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelAccessError(f"the tokenizer of {model} cannot be fetched: {error}") from None
    return load_tokenizer(Path(folder))


def _info(settings: Settings, tokenizer: HFTokenizer, pool: Pool) -> EngineInfo:
    offers = pool.offers
    lengths = [length for offer in offers if (length := offer.context_length) is not None]
    length = settings.context_length or min(lengths, default=0)
    if not length:
        raise UpstreamError("the upstream does not say how long its context is: set context_length")
    if lengths and length > min(lengths):
        raise UpstreamError(f"context_length is {length}, and an upstream holds {min(lengths)}")
    return EngineInfo(
        engine="upstream",
        model=offers[0].model,
        architecture="",
        context_length=length,
        vocabulary_size=tokenizer.vocabulary_size,
        layers=0,
        heads=0,
        tokenizer_fingerprint=tokenizer.fingerprint,
        template_fingerprint=tokenizer.template_fingerprint,
        model_fingerprint="",
        capabilities=Capabilities(export_kv=False, batched=True),
        hardware=", ".join(sorted({offer.dialect.name for offer in offers})),
        max_sequences=settings.upstream_generations * pool.size,
    )
