"""What can be chosen, and what it does, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QGridLayout, QWidget

from demos.chat.ui.form import Form
from demos.chat.ui.look import label
from demos.chat.ui.model_picker import ModelPicker
from demos.chat.viewmodel import choices
from demos.chat.viewmodel.figures import MODE_HINTS, MODE_NAMES

if TYPE_CHECKING:
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.app import AppModel
    from demos.chat.viewmodel.settings import Settings

KEYS = (
    ("Enter", "send"),
    ("Shift+Enter", "new line"),
    ("Esc", "stop the answer, or leave a comparison"),
    ("Ctrl+R", "answer again"),
    ("Ctrl+Shift+C", "copy the last answer"),
    ("Page up, page down", "scroll the conversation"),
    ("Ctrl+E", "edit the last question and ask again"),
    ("Ctrl+N", "new chat"),
    ("Ctrl+K", "search conversations"),
    ("F2, Delete", "rename, delete the selected conversation"),
    ("Ctrl+O", "attach documents"),
    ("Ctrl+L", "to the question"),
    ("Ctrl+B", "show or hide the conversations"),
    ("Ctrl+U", "unplug the emulated network"),
    ("Ctrl++, Ctrl+-, Ctrl+0", "larger, smaller, usual text"),
    ("Ctrl+,", "settings"),
)


def device_page(look: Look, app: AppModel) -> Form:
    form, settings = Form("Device"), app.settings
    picker = ModelPicker(look, "Model on this device", settings.device_model, app.downloads["device"])
    form.field("device_model", "Model on this device", picker, picker.spec, "Empty: the cloud answers alone.")
    form.choice(
        "device_profile", "Speed", settings.device_profile, choices.hardware("This machine's own speed"),
        "Emulated hardware slows this machine down to published figures of another one; answers stay the model's.",
    )  # fmt: skip
    return form


def cloud_page(look: Look, app: AppModel) -> Form:
    form, settings = Form("Cloud"), app.settings
    kinds = {"none": "None", "remote": "A service, by its address", "local": "A process on this machine"}
    kind = form.choice("cloud", "Cloud", settings.cloud, kinds)
    form.text("cloud_url", "Address of the service", settings.cloud_url, "wss://host, or ws://host:port.")
    form.text("api_key", "Key", settings.api_key, "Kept in a file that only you can read.", secret=True)
    form.text("cloud_model", "Model of the service", settings.cloud_model, "Empty: the one that it offers.")
    picker = ModelPicker(look, "Model of the process", settings.local_cloud_model, app.downloads["cloud"])
    form.field("local_cloud_model", "Model of the process on this machine", picker, picker.spec)
    form.choice(
        "local_cloud_profile", "Speed of that process", settings.local_cloud_profile,
        choices.hardware("This machine's own speed"),
    )  # fmt: skip
    form.choice("link", "Network to the cloud", settings.link, choices.links(), "Emulated ones need ws://.")
    form.optional(
        "price_per_million", "Price of a million cloud tokens", settings.price_per_million, "not known",
        (0.0, 10_000.0), 0.01, "In any currency.",
    )  # fmt: skip
    chosen = list(kinds)
    form.only_where(kind, lambda: chosen[kind.currentIndex()] == "remote", ("cloud_url", "api_key", "cloud_model"))
    form.only_where(kind, lambda: chosen[kind.currentIndex()] == "local", ("local_cloud_model", "local_cloud_profile"))
    form.only_where(kind, lambda: chosen[kind.currentIndex()] != "none", ("link", "price_per_million"))
    return form


def answers_page(settings: Settings) -> Form:
    form = Form("Answers")
    names = {mode: f"{name}  –  {MODE_HINTS[mode]}" for mode, name in MODE_NAMES.items()}
    form.choice("mode", "Who answers", settings.mode, names)
    form.area("system_prompt", "System prompt", settings.system_prompt, "Comes before every conversation.")
    form.count("max_tokens", "Longest answer", settings.max_tokens, (1, 32_768), suffix=" tokens")
    form.number(
        "temperature", "Temperature", settings.temperature, (0.0, 10.0), 0.1,
        "0 always takes the likeliest token; the seed below counts above 0.",
    )  # fmt: skip
    form.count("top_k", "Top-k", settings.top_k, (0, 100_000), "0 leaves all tokens in.")
    form.number("top_p", "Top-p", settings.top_p, (0.01, 1.0), 0.05, "1 leaves all tokens in.")
    form.number("min_p", "Min-p", settings.min_p, (0.0, 1.0), 0.01, "0 leaves all tokens in.")
    form.number(
        "repetition_penalty", "Repetition penalty", settings.repetition_penalty, (0.1, 10.0), 0.05, "1 is none."
    )
    form.count("seed", "Seed", settings.seed, (0, 2**31 - 1), "The same on both sides, so a hand-over changes nothing.")
    return form


def split_page(settings: Settings) -> Form:
    form = Form("Split")
    form.path(
        "split_file", "Split configuration", settings.split_file,
        "A file of pd-plan: route, grant, keep ratio and pace by a prompt's length, where “Split” is chosen.",
        "Split configurations (*.toml);;All files (*)",
    )  # fmt: skip
    form.optional(
        "grant", "Grant", settings.grant, "as many as needed", (0, 4_096), 1,
        "Tokens that the cloud may give before the device has to go on.", whole=True,
    )  # fmt: skip
    form.optional(
        "keep_ratio", "Keep ratio", settings.keep_ratio, "the whole prompt", (0.05, 1.0), 0.05,
        "Share of the prompt that the device still reads, where the cloud says which parts matter.",
    )  # fmt: skip
    form.choice(
        "pace_mode", "Pace", settings.pace_mode,
        {"smooth": "Smooth: as evenly as can be foreseen", "fixed": "Fixed", "off": "Off: each token as it comes"},
    )  # fmt: skip
    form.number("pace_ms", "Preferred pace, ms per token", settings.pace_ms, (1.0, 2_000.0), 5.0)
    return form


def looks_page(settings: Settings) -> Form:
    form = Form("Appearance")
    form.choice("theme", "Theme", settings.theme, {"system": "As the system", "light": "Light", "dark": "Dark"})
    form.count("font_size", "Text size", settings.font_size, (8, 20), suffix=" pt")
    form.check(
        "source_colours",
        "Colour words by who said them",
        settings.source_colours,
        "The hand-over is marked either way.",
    )
    form.check("timelines", "Show the timeline below a new answer", settings.timelines)
    form.check("reduced_motion", "Reduced motion", settings.reduced_motion, "Nothing moves by itself.")
    return form


def keyboard_page() -> Form:
    form = Form("Keyboard")
    table = QWidget()
    grid = QGridLayout(table)
    grid.setContentsMargins(0, 8, 0, 0)
    grid.setHorizontalSpacing(18)
    for row, (key, action) in enumerate(KEYS):
        grid.addWidget(label(key), row, 0)
        grid.addWidget(label(action, "muted"), row, 1)
    grid.setColumnStretch(1, 1)
    form.add(table)
    return form
