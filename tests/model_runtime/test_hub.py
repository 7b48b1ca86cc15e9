"""Downloads by the Hub's real client from a real HTTP server on loopback that speaks the Hub's few endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_runtime import download
from model_runtime.core import Cancellation
from model_runtime.errors import (
    DiskFullError,
    DownloadError,
    LoadCancelled,
    LoadTimeoutError,
    ModelAccessError,
    ModelNotFoundError,
)
from model_runtime.hub import DownloadProgress, cached, pull
from model_runtime.hub_files import HubSpec, choose, is_hub_spec, parse_spec
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.onnx.graph import read_graph
from tests.hub_server import COMMIT, WEIGHTS, Hub, serving

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # Whatever the machine that runs the tests is logged in to.
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(Hub({"README.md": b"# A model", "model.gguf": WEIGHTS})) as hub:
        yield hub


def get(hub: Hub, cache: Path, spec: str = "hf://owner/model", **arguments: object) -> Path:
    return pull(spec, cache_dir=cache, endpoint=hub.url, **arguments)  # type: ignore[arg-type]


def test_downloads_what_is_needed_and_reports_progress(hub: Hub, tmp_path: Path) -> None:
    seen: list[DownloadProgress] = []
    path = get(hub, tmp_path, progress=seen.append)
    assert path.read_bytes() == WEIGHTS
    assert path.name == "model.gguf"
    assert seen[-1] == DownloadProgress(len(WEIGHTS), len(WEIGHTS))
    assert [progress.done_bytes for progress in seen] == sorted(progress.done_bytes for progress in seen)
    assert {name for name, _ in hub.gets} == {"model.gguf"}


def test_what_is_in_the_cache_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    assert cached("hf://owner/model", cache_dir=tmp_path) is None
    path = get(hub, tmp_path)
    hub.refuse = (500, "")
    assert cached("hf://owner/model", cache_dir=tmp_path) == path
    assert cached(f"hf://owner/model@{COMMIT}/model.gguf", cache_dir=tmp_path) == path
    assert cached("hf://owner/model/other.gguf", cache_dir=tmp_path) is None
    assert cached("hf://owner/model@v2", cache_dir=tmp_path) is None


def test_the_cache_is_the_one_of_other_programs(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    path = get(hub, tmp_path)
    assert try_to_load_from_cache("owner/model", "model.gguf", cache_dir=tmp_path) == str(path)


def test_a_second_pull_downloads_only_what_changed(hub: Hub, tmp_path: Path) -> None:
    get(hub, tmp_path)
    get(hub, tmp_path)
    assert len(hub.gets) == 1
    hub.files["model.gguf"] = WEIGHTS[::-1]
    hub.commit = "f" * 40
    assert get(hub, tmp_path).read_bytes() == WEIGHTS[::-1]
    assert (
        cached("hf://owner/model", cache_dir=tmp_path)
        == tmp_path / "models--owner--model/snapshots" / ("f" * 40) / "model.gguf"
    )


def test_a_lost_connection_is_continued_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts_left = 1_000_000, 3
    assert get(hub, tmp_path).read_bytes() == WEIGHTS
    begins = [begin for _, begin in hub.gets]
    assert begins[0] == 0
    assert len(begins) == 4
    assert begins[1] >= 700_000  # all but what was still in the client's hands
    assert begins == sorted(begins)


def test_a_server_without_ranges_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts_left, hub.knows_ranges = 1_000_000, 1, False
    seen: list[DownloadProgress] = []
    assert get(hub, tmp_path, progress=seen.append).read_bytes() == WEIGHTS
    assert seen[-1].done_bytes == len(WEIGHTS)


def test_a_connection_that_breaks_every_time_is_given_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 2)
    hub.cuts_left = 100
    with pytest.raises(DownloadError, match="try again to go on from there"):
        get(hub, tmp_path)


def test_cancelled_in_the_middle_of_a_hanging_download_and_continued(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SILENCE_S", 1000.0)  # nothing but the cancellation ends the wait for more bytes
    hub.hang_after = 2_000_000
    cancellation = Cancellation()

    def cancel_when_it_hangs(progress: DownloadProgress) -> None:
        if progress.done_bytes > 1_000_000:
            cancellation.cancel()

    with pytest.raises(LoadCancelled):
        get(hub, tmp_path, cancellation=cancellation, progress=cancel_when_it_hangs)
    hub.hang_after = None
    hub.over.set()  # the server lets go of the old connection, and the abandoned thread of the partial file
    assert get(hub, tmp_path).read_bytes() == WEIGHTS
    assert hub.gets[-1][1] > 1_000_000


def test_cancelled_before_it_began(hub: Hub, tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(LoadCancelled):
        get(hub, tmp_path, cancellation=cancellation)


def test_a_time_limit_ends_it(hub: Hub, tmp_path: Path) -> None:
    hub.hang_after = 0
    with pytest.raises(LoadTimeoutError, match=r"within 0\.3 s"):
        get(hub, tmp_path, timeout_s=0.3)


def test_damaged_data_never_reaches_the_cache(hub: Hub, tmp_path: Path) -> None:
    hub.damage = True
    with pytest.raises(DownloadError, match="arrived damaged"):
        get(hub, tmp_path)
    assert cached("hf://owner/model", cache_dir=tmp_path) is None
    hub.damage = False
    assert get(hub, tmp_path).read_bytes() == WEIGHTS


def test_a_progress_that_raises_ends_the_download(hub: Hub, tmp_path: Path) -> None:
    def broken(_: DownloadProgress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        get(hub, tmp_path, progress=broken)


@pytest.mark.parametrize(
    ("refuse", "error", "message"),
    [
        ((401, "RepoNotFound"), ModelAccessError, "log in with a token"),
        ((403, "GatedRepo"), ModelAccessError, "accept terms"),
        ((403, ""), ModelAccessError, "answers 403"),
        ((404, "RepoNotFound"), ModelNotFoundError, "is not on the Hub"),
        ((404, "RevisionNotFound"), ModelNotFoundError, "is not on the Hub"),
        ((500, ""), DownloadError, "cannot be downloaded"),
    ],
)
def test_refusals_are_told_apart(
    hub: Hub, tmp_path: Path, refuse: tuple[int, str], error: type[Exception], message: str
) -> None:
    hub.refuse = refuse
    with pytest.raises(error, match=message):
        get(hub, tmp_path)


def test_a_token_opens_a_private_repository(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    with pytest.raises(ModelAccessError):
        get(hub, tmp_path)
    assert get(hub, tmp_path, token="hf_secret").read_bytes() == WEIGHTS


def test_no_network(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        pull("hf://owner/model", cache_dir=tmp_path, endpoint="http://127.0.0.1:9")


def test_a_server_cannot_choose_where_files_go(hub: Hub, tmp_path: Path) -> None:
    hub.commit = "../../outside"
    with pytest.raises(DownloadError, match="no hashes"):
        get(hub, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])


def test_a_disk_that_is_too_small(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(download.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(DiskFullError, match=r"needs 0\.00 GB more .* 0\.00 GB are free"):
        get(hub, tmp_path)


def test_loads_an_onnx_model_with_what_belongs_to_it(
    hub: Hub, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    files = {file.name: file.read_bytes() for file in tiny_model("llama").iterdir() if file.suffix != ".gguf"}
    needed = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx"}
    # The graph keeps its weights in a file that is not named after it: only the graph tells.
    needed |= set(read_graph(tiny_model("llama") / "model.onnx").external)
    hub.files = files | {"README.md": b"# A model", "other.bin": WEIGHTS}
    seen: list[LoadProgress] = []
    with load_engine("hf://owner/model", cache_dir=tmp_path, progress=seen.append, endpoint=hub.url) as engine:
        assert (engine.info.engine, engine.info.model) == ("onnxruntime", "owner/model")
    assert {name for name, _ in hub.gets} == needed
    stages = [progress.stage for progress in seen]
    assert stages == sorted(stages)  # download, then load
    assert seen[-1] == LoadProgress("load", 1.0)
    hub.gets.clear()
    hub.refuse = (500, "")
    with load_engine("hf://owner/model", cache_dir=tmp_path, endpoint=hub.url):
        assert hub.gets == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hf://a/b", HubSpec("a/b")),
        ("hf://a/b@v1.0", HubSpec("a/b", "v1.0")),
        ("hf://a-1/b.c_d/onnx/model.onnx", HubSpec("a-1/b.c_d", "main", "onnx/model.onnx")),
        ("hf://a/b@refs%2Fpr%2F3/x.gguf", HubSpec("a/b", "refs/pr/3", "x.gguf")),
    ],
)
def test_specs(spec: str, expected: HubSpec) -> None:
    assert parse_spec(spec) == expected
    assert is_hub_spec(spec)
    assert not is_hub_spec(Path("hf:/a/b"))


@pytest.mark.parametrize("spec", ["hf://", "hf://a", "hf:///b", "hf://a/b@", "hf://a/b/", "hf://a b/c"])
def test_bad_specs_say_what_was_expected(spec: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"expected hf://owner/name"):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("names", "file", "expected"),
    [
        (["config.json", "onnx/model.onnx", "onnx/model_fp16.onnx"], None, ["config.json", "onnx/model.onnx"]),
        (["model.onnx", "model.onnx_data", "x.json"], None, ["model.onnx_data", "model.onnx"]),
        (
            ["config.json", "cpu/a.onnx", "cpu/config.json", "gpu/a.onnx"],
            "cpu",
            ["config.json", "cpu/config.json", "cpu/a.onnx"],
        ),
        (["a.Q4.gguf", "a.Q8.gguf"], "a.Q8.gguf", ["a.Q8.gguf"]),
        (["mmproj-a.gguf", "a.gguf"], None, ["a.gguf"]),
        (["a-00002-of-00002.gguf", "a-00001-of-00002.gguf"], None, ["a-00002-of-00002.gguf", "a-00001-of-00002.gguf"]),
    ],
)
def test_which_files_are_needed(names: list[str], file: str | None, expected: list[str]) -> None:
    choice = choose(names, HubSpec("o/m", file=file), "auto")
    assert sorted(choice.files) == sorted(expected)
    assert choice.files[-1] == choice.model == expected[-1]


def test_engine_decides_between_two_kinds() -> None:
    names = ["model.onnx", "model.gguf"]
    assert choose(names, HubSpec("o/m"), "onnx").model == "model.onnx"
    assert choose(names, HubSpec("o/m"), "llama").model == "model.gguf"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.safetensors"], r"no \.onnx or \.gguf file"),
        (["a.Q4.gguf", "a.Q8.gguf"], r"several models fit.*a\.Q4\.gguf; a\.Q8\.gguf"),
        (["model.onnx", "model.gguf"], "several models fit"),
        (["other.gguf"], r"there is no such model file.*other\.gguf"),
    ],
)
def test_a_choice_that_is_not_ours_lists_what_there_is(names: list[str], message: str) -> None:
    file = "missing.gguf" if names == ["other.gguf"] else None
    with pytest.raises(ModelNotFoundError, match=message):
        choose(names, HubSpec("o/m", file=file), "auto")
