"""The budget of --plan: intervals, what holds a stage up, a user's own prices, and no more than seconds for any list."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from corgi.budget.estimate import estimate, gpu_waits
from corgi.budget.machines import Machines, of_stage
from corgi.budget.plan import lines, listed_rows
from corgi.budget.rates import Interval, exactly, load
from corgi.budget.work import Work, tower_flops, works
from corgi.flow.demand import Demand
from corgi.flow.node_types import NodeType, NodeTypes
from corgi.settings.errors import InputError
from corgi.settings.recipe import load as load_recipe
from tests.cluster.versions import CLUSTER, REPOSITORY
from tests.support import plans_page

STAGES = ["plan", "download", "embed", "curate", "shift", "pack", "prior"]
RATES = load()


def told(*overrides: str, rows: int | None = 400_000_000, stages: list[str] = STAGES) -> list[str]:
    recipe = load_recipe(REPOSITORY / "pipelines/recipes/laion-b32.yaml", list(overrides))
    return list(lines(recipe, stages, rows))


AWS = f"cluster.file={CLUSTER / 'aws.yaml'}"


def test_every_rate_has_an_interval_a_unit_a_source_and_a_date() -> None:
    table = yaml.safe_load((REPOSITORY / "corgi/budget/rates.yaml").read_text())
    prices, encoders = table.pop("prices"), table.pop("encoders")
    for name, entry in {**table, **prices, **encoders}.items():
        low, high = entry["value"]
        assert 0 < low <= high, name
        assert entry["source"], name
        assert str(entry["date"]) >= "2026-01-01", name
    assert all("unit" in entry for entry in table.values())


def test_plan_says_what_holds_each_stage_up_and_what_to_add_first() -> None:
    stages = [*STAGES, "autoencoder", "decoder"]
    found = told(AWS, stages=stages)
    for stage in stages[1:]:
        at = next(number for number, line in enumerate(found) if line.startswith(f"{stage} "))
        assert " to " in found[at]
        assert " h, " in found[at]
        assert "dollars" in found[at]
        assert "held up by" in found[at + 1]
        assert "add first" in found[at + 1]


def test_it_says_how_long_the_gpu_waits_and_the_cpus_that_feed_it() -> None:
    def waiting(*overrides: str) -> list[str]:
        return [line.strip() for line in told(AWS, *overrides, stages=["embed"]) if "the GPU waits" in line]

    [starved] = waiting("embed.cpus_per_actor=1")
    assert re.fullmatch(
        r"the GPU waits 0% to 8\d% of the time for decoded pictures; set embed\.cpus_per_actor=9", starved
    )
    assert not waiting("embed.cpus_per_actor=9")
    [large] = waiting("embed.cpus_per_actor=1", "download.image_size=1024")
    assert re.search(r"set embed\.cpus_per_actor=12; nodes with \d+ CPUs for each GPU would feed it$", large)
    assert not waiting("embed.gpus_per_actor=0")


@pytest.mark.law
def test_a_gpu_waits_by_as_much_as_the_cpus_take_longer() -> None:
    waits = gpu_waits({"CPU": Interval(10, 20), "GPU": Interval(5, 15)})
    assert waits == Interval(0, 0.75)
    assert gpu_waits({"CPU": Interval(1, 2), "GPU": Interval(3, 4)}) == Interval(0, 0)
    assert gpu_waits({"GPU": Interval(3, 4)}) is None


def test_finished_stages_cost_nothing_and_no_file_says_nothing() -> None:
    assert not [line for line in told(AWS, stages=["embed"]) if line.startswith("download")]
    assert told() == []


def test_a_list_that_is_not_read_is_counted_by_the_million() -> None:
    first = told(AWS, "plan.input=list.csv", rows=None)[0]
    assert "1,000,000 rows" in first
    assert "not read yet" in first


def rows_listed(*inputs: str) -> int | None:
    given = f"plan.input={json.dumps(inputs)}"
    return listed_rows(load_recipe(REPOSITORY / "pipelines/recipes/laion-b32.yaml", [given]))


def test_rows_of_parquet_lists_come_from_their_footers(tmp_path: Path) -> None:
    """The lists are those that plan.input means to the plan stage: by globs over folders, URIs and names with brackets."""
    for name, count in (("a", 3), ("b", 4), ("c/d/e", 5), ("part[1]", 6)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"url": ["http://x/"] * count}), tmp_path / f"{name}.parquet")
    assert rows_listed(f"{tmp_path}/?.parquet") == 7
    assert rows_listed(f"{tmp_path}/?.parquet", f"{tmp_path}/a.parquet") == 7
    assert rows_listed(f"{tmp_path}/**/*.parquet") == 18
    assert rows_listed(f"{tmp_path}/part[1].parquet") == 6
    assert rows_listed(f"file://{tmp_path}/a.parquet") == 3


def test_rows_are_unknown_if_one_list_is_elsewhere_or_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://x/"] * 3}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("url\n")
    for other in (
        "memory://lists/b.parquet",
        f"{tmp_path}/b.csv",
        f"{tmp_path}/none-*.parquet",
        str(tmp_path),
    ):
        assert rows_listed(f"{tmp_path}/a.parquet", other) is None, other


@pytest.mark.parametrize(
    ("work", "bottleneck"),
    [
        (Work(exactly(1), cpu_s=exactly(1e9)), "CPU"),
        (Work(exactly(1), received_bytes=exactly(1e18)), "network"),
        (Work(exactly(1), written_bytes=exactly(1e18)), "storage"),
        (Work(exactly(1), waited_s=exactly(1e12)), "requests in flight"),
        (Work(exactly(1), flops=exactly(1e24)), "GPU"),
    ],
)
def test_the_slowest_resource_is_named(work: Work, bottleneck: str) -> None:
    found = estimate(work, Machines(("1 x n",), 1, 16, 312e12, exactly(2)), 64, RATES)
    assert found is not None
    assert found.bottleneck == bottleneck
    assert found.dollars == found.hours * 2


def test_twice_the_nodes_take_half_the_time() -> None:
    work = Work(exactly(1e9), cpu_s=exactly(1e9), received_bytes=exactly(1e14))
    one, two = (estimate(work, Machines((), n, 16.0 * n, None, None), 0, RATES) for n in (1, 2))
    assert one is not None
    assert two is not None
    assert two.hours.high == pytest.approx(one.hours.high / 2)
    assert two.dollars is None


def test_spot_nodes_are_taken_first_at_their_share_of_the_price() -> None:
    kinds = [NodeType("spot", 48, 4, 2, {"ray.io/market-type": "spot"}, "g6.12xlarge")]
    kinds += [NodeType("full", 48, 4, 2, {"ray.io/market-type": "on-demand"}, "g6.12xlarge")]
    cluster = NodeTypes("f", kinds, 4)
    some, all_ = (of_stage(Demand("prior", n, 1, 1), cluster, RATES) for n in (8, 12))
    assert (some.names, all_.names) == (("2 x spot",), ("2 x spot", "1 x full"))
    price = RATES.price("g6.12xlarge")
    assert price is not None
    assert some.dollars_per_hour == price * RATES["spot_share_of_price"] * 2
    assert all_.peak_flops == pytest.approx(12 * 121e12)


def test_own_prices_are_taken_and_a_wrong_table_is_one_line(tmp_path: Path) -> None:
    own = tmp_path / "rates.yaml"
    own.write_text("prices: {cpu-data: {value: [1.0, 2.0]}, gpu-spot: {value: [3.0, 3.0], gpu: H100}}\n")
    kubernetes = f"cluster.file={CLUSTER / 'kuberay/rayjob.yaml'}"
    assert any("price not known" in line for line in told(kubernetes))
    found = told(kubernetes, f"cluster.rates={own}")
    assert not any("price not known" in line or "hours not known" in line for line in found)
    for text in ("a: 1", "fetch_latency: {value: [2, 1]}", "prices: {x: {}}", "- 1", "a: b: c"):
        own.write_text(text)
        with pytest.raises(InputError, match=r"cluster\.rates=.*not a table of rates") as refused:
            load(str(own))
        assert "\n" not in str(refused.value)


def test_flops_of_towers_are_those_of_open_clips_profile() -> None:
    """open_clip's model_profile.csv: ViT-B-32 8.82 and 5.96 GFLOPs, ViT-L-14 162.0 and 13.3, picture and caption."""
    for model, published in (("ViT-B-32", 8.82e9 + 5.96e9), ("ViT-L-14", 162.0e9 + 13.3e9)):
        assert tower_flops(model, None) == pytest.approx(published, rel=0.05)
    assert tower_flops("RN101", None) is None


def test_the_budget_of_400_million_rows_fits_in_500_mb() -> None:
    code = (
        "from pathlib import Path; from tests.budget.test_plan import AWS, told; assert told(AWS);"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert int(ran.stdout) / 1024 < 500


def test_the_command_prints_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://x/"], "caption": ["x"]}), tmp_path / "list.parquet")
    script = [sys.executable, "pipelines/full.py", "pipelines/recipes/laion-b32.yaml", "--plan", AWS]
    given = [f"root={tmp_path}", f"plan.input={tmp_path}/list.parquet"]
    ran = subprocess.run([*script, *given], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "budget for 1 rows on" in ran.stdout
    assert "held up by" in ran.stdout


def test_the_page_shows_what_the_plan_says_now() -> None:
    assert plans_page.on_page() == plans_page.section().strip()


def test_the_plans_of_the_page_would_not_be_refused_and_the_recipe_as_it_is_would_be_told_so() -> None:
    assert not [line for planned in plans_page.PLANNED for line in planned.lines() if "not to be had" in line]
    refused = [line for line in plans_page.Planned("corgi", "gcp").lines() if "not to be had" in line]
    assert len(refused) == 3, "prior, autoencoder and decoder ask for 64 GPUs of 48"
    assert (
        "it needs 64 workers of 1 CPU and 1 GPU, but cluster/gcp.yaml has room for at most 48" in refused[0]
    )


def test_word_encodings_are_counted_and_unknown_encoders_are_named() -> None:
    """T5-11B's encoder: 4.83 B parameters for each token, and 1,024 halves of state: more than all towers and vectors."""
    kept = RATES["kept_share"] * 1e6
    words = {"without": "", "known": "google-t5/t5-11b", "unknown": "someone/else", "tower": "tower:b32"}
    found = {}
    for name, model in words.items():
        tokens = [f'embed.tokens=[{{"name": "w", "model": "{model}", "max_tokens": 80}}]'] if model else []
        recipe = load_recipe(REPOSITORY / "pipelines/recipes/laion-b32.yaml", tokens)
        found[name] = works(recipe, 1e6, RATES)["embed"]
    assert found["unknown"].unknown == ("the words of w",)
    assert found["unknown"].written_bytes == found["without"].written_bytes
    assert found["known"].unknown == found["tower"].unknown == ()
    more = found["known"].flops.high - found["without"].flops.high
    assert more == pytest.approx(kept.high * 2 * 80 * 4.83e9)
    tokens = RATES["tokens_per_caption"]
    stored = found["known"].written_bytes.low - found["without"].written_bytes.low
    assert stored == pytest.approx(kept.low * tokens.low * 2 * 1024)
    assert found["tower"].flops == found["without"].flops
    assert found["tower"].written_bytes.low > found["without"].written_bytes.low


def test_intervals_add_and_divide_by_their_ends() -> None:
    assert Interval(1, 2) + Interval(3, 4) == Interval(4, 6)
    assert Interval(1, 2) / Interval(2, 4) == Interval(0.25, 1)
    assert Interval(1, 2).holds(2)
    assert not Interval(1, 2).holds(2.1)
