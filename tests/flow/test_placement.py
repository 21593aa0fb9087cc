"""Where work may run: Ray's own scheduler of node types, asked about our files, and a look at every place that asks for nodes."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corgi.flow.placement import WORK_LABEL, selector
from tests.cluster.node_types import FILES, node_types

PACKAGE = Path(__file__).resolve().parents[2] / "corgi"


def launched(
    name: str,
    need: dict[str, float],
    count: int,
    label_selector: dict[str, str],
    availability: dict[str, float] | None = None,
) -> Counter[str]:
    """Return the nodes Ray's autoscaler would start for so many equal demands on an empty cluster of a file."""
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated import common_pb2

    messages: Any = common_pb2  # protobuf makes its enums when it is imported
    types = node_types(name)
    negated = [
        (key, messages.LabelSelectorOperator.LABEL_OPERATOR_NOT_IN, [value.removeprefix("!")])
        for key, value in label_selector.items()
    ]
    requests = [
        ResourceRequestUtil.make(need, label_selectors=[negated] if negated else None) for _ in range(count)
    ]
    scores = dict.fromkeys(types, 1.0) | (availability or {})
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            node_type_configs=types,
            disable_launch_config_check=True,
            max_num_nodes=24,
            resource_requests=ResourceRequestUtil.group_by_count(requests),
            recoverable_resource_availabilities=scores,
            cloud_resource_availabilities=scores,
        )
    )
    return Counter({launch.instance_type: launch.count for launch in reply.to_launch})


@pytest.mark.parametrize("name", FILES)
def test_cpu_work_never_starts_a_gpu_node_however_much_of_it_waits(name: str) -> None:
    asked = {"CPU": 1.0}, 1000
    assert launched(name, *asked, selector(0)) == {"cpu-data": 16}
    assert {"gpu-spot", "gpu-on-demand"} & set(launched(name, *asked, {})), "the case would prove nothing"


@pytest.mark.parametrize("name", FILES)
def test_gpu_work_takes_spot_before_on_demand_and_on_demand_when_spot_is_dry(name: str) -> None:
    asked = {"CPU": 1.0, "GPU": 1.0}, 8
    assert launched(name, *asked, selector(1)) == {"gpu-spot": 2}
    assert launched(name, *asked, selector(1), {"gpu-spot": 0.0}) == {"gpu-on-demand": 2}


def test_selectors_name_labels_that_the_files_give() -> None:
    for name in FILES:
        assert {types.labels.get(WORK_LABEL) for types in node_types(name).values()} >= {"cpu", "gpu"}
    assert selector(0) == {WORK_LABEL: "!gpu"}
    assert selector(0.5) == {}


def _asks_for_nodes(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute | ast.Name) and ast.unparse(call.func) in (
        "ray.remote",
        "ScalingConfig",
    )


def test_every_place_that_asks_for_nodes_says_which() -> None:
    found = 0
    for path in PACKAGE.rglob("*.py"):
        tree: Any = ast.parse(path.read_text())
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if _asks_for_nodes(call):
                found += 1
                assert "label_selector" in {word.arg for word in call.keywords}, f"{path}:{call.lineno}"
        text = path.read_text()
        if "ray.data.from_items" in text:
            found += 1
            assert re.search(r"execution_options\.label_selector = .*\bselector\(", text), path
    assert found >= 6
