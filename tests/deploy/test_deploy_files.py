"""What lies in `deploy/` loads where it is meant to: names of metrics and of settings are the service's own."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from cloud_service.metrics import Metrics
from cloud_service.pool.metrics import PoolMetrics
from cloud_service.settings import ENVIRONMENT_PREFIX, Settings
from cloud_service.token_metrics import TokenMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/pd-cloud.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
MANIFESTS = [
    pytest.param(manifest, id=f"{file.stem}-{manifest['kind']}-{manifest['metadata']['name']}")
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]

#: What Grafana puts in, as it puts it in.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}


def samples() -> dict[str, set[str]]:
    """The labels of every time series that the service exposes, by its name; `up` is Prometheus's own."""
    found: dict[str, set[str]] = {"up": {"job"}}
    registry = Metrics().registry
    pool = PoolMetrics(registry, list)
    found |= {family.name: set(family._labelnames) for family in pool.collect()}
    tokens = TokenMetrics(())
    kinds = [(family.name, family.type, set[str]()) for family in tokens.collect()]
    others = (c for c in set(registry._collector_to_names) - {pool} if not isinstance(c, TokenMetrics))
    kinds += [(collector._name, collector._type, set(collector._labelnames)) for collector in others]
    for name, kind, labels in kinds:
        match kind:
            case "counter":
                found[f"{name}_total"] = labels
            case "histogram":
                found |= {f"{name}_bucket": {*labels, "le"}, f"{name}_sum": labels, f"{name}_count": labels}
            case _:
                found[name] = labels
    return found


def expressions() -> list[str]:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    for name, value in VARIABLES.items():
        targets = [text.replace(name, value) for text in targets]
    return [*(rule["expr"] for rule in RULES), *targets]


def selectors(node: Any) -> list[Any]:
    """Every vector selector of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    parts: list[Any] = []
    for name in ("expr", "lhs", "rhs", "args"):
        part = getattr(node, name, None)
        parts += part if isinstance(part, list) else [part] if part is not None else []
    return list(itertools.chain.from_iterable(map(selectors, parts)))


@pytest.mark.parametrize("text", expressions())
def test_expressions_are_promql_over_metrics_that_exist(text: str) -> None:
    known = samples()
    used = selectors(promql_parser.parse(text))
    assert used
    for selector in used:
        assert selector.name in known
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known[selector.name] | {"instance", "job"}
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", text) for label in re.split(r",\s*", group)}
    assert grouped <= set().union(*(known[selector.name] for selector in used)) | {"instance"}


def test_every_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    suffix = re.compile(r"_(total|bucket|sum|count)$")
    shown = {suffix.sub("", one.name) for text in expressions() for one in selectors(promql_parser.parse(text))}
    hidden = {suffix.sub("", name) for name in samples()} - shown
    assert hidden == {"pd_kv_cache_tokens", "pd_prefix_cache_tokens"}, "shares of the same are shown"


def test_rules_say_what_is_wrong_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed")
def test_prometheus_loads_the_rules_and_the_configuration() -> None:
    for check, file in (("rules", "alerts.yaml"), ("config", "prometheus.yaml")):
        path = DEPLOY / "prometheus" / file
        subprocess.run(["promtool", "check", check, str(path)], check=True, capture_output=True)


def test_the_dashboard_is_laid_out() -> None:
    panels = DASHBOARD["panels"]
    assert DASHBOARD["schemaVersion"] >= 39
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & own, f"{panel['title']} lies over another panel"
        cells |= own
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}


def test_the_compose_file_is_one() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, str(DEPLOY / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for mount in (mount.split(":") for mount in service.get("volumes", ())):
            assert mount[0] in compose["volumes"] or (DEPLOY / mount[0]).exists()
        assert set(service.get("depends_on", ())) <= set(compose["services"])
    load_environment(compose["services"]["gateway"]["environment"])


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_kubernetes_takes_the_manifests(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_what_the_manifests_name_is_there() -> None:
    manifests = [parameter.values[0] for parameter in MANIFESTS]
    named = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
    settings = load_environment(named["ConfigMap", "pd-cloud"]["data"])
    pod = named["Deployment", "pd-cloud"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["ports"][0]["containerPort"] == settings.port
    assert pod["terminationGracePeriodSeconds"] > 5 + settings.drain_ms / 1000 + 5
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(settings.key_file.parent) in mounts
    engines = named["StatefulSet", "vllm"]["spec"]
    assert len(settings.upstream_urls) == engines["replicas"]
    assert settings.model.removeprefix("hf://") in engines["template"]["spec"]["containers"][0]["args"]


def load_environment(variables: dict[str, str]) -> Settings:
    """The settings that these variables make; an unknown name fails."""
    text = {name.removeprefix(ENVIRONMENT_PREFIX).lower(): value for name, value in variables.items()}
    assert all(name.startswith(ENVIRONMENT_PREFIX) for name in variables)
    return Settings(**text)
