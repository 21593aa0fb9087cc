"""The kinds of sections of the report: what each shows, and the macro of sections.html.j2 that draws it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from corgi.report import charts, cluster_sheets, figures, funnel, intervals, origins, stage_costs, stage_graph
from corgi.report.committed import Committed
from corgi.report.grid_table import GridGroup
from corgi.tables.manifest import StageManifest


@dataclass(frozen=True)
class Section:
    """A section of the page; each kind adds the data that it shows."""

    macro: ClassVar[str]
    """Name of the macro that draws it."""
    anchor: str
    title: str
    intro: str = ""
    is_sampled: ClassVar[bool] = False
    """Whether it reads rows: for a large run only the first shards are read, and the page says so."""


@dataclass(frozen=True)
class Figure:
    """A stage's own figure, as a data URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class StageSection(Section):
    """A stage that commits models or measurements: notes, pictures, curves, numbers, documents."""

    macro = "stage"
    notes: Sequence[str] = ()
    plates: Sequence[Figure] = ()
    grid: Sequence[GridGroup] = ()
    curves: Sequence[charts.Chart] = ()
    interval_charts: Sequence[intervals.IntervalChart] = ()
    """Measures with their 95 % intervals."""
    tables: Sequence[figures.Table] = ()
    documents: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class EmbedSection(StageSection):
    """The embeddings: similarities of captions and pictures, and the stage's facts."""

    is_sampled = True


@dataclass(frozen=True)
class FlowSection(Section):
    """The stages as a graph, and the cost of each."""

    macro = "flow"
    graph: stage_graph.Graph = field(kw_only=True)
    costs: Sequence[stage_costs.StageCost] = ()
    total_time: str = ""
    total_stored: str = ""
    total_dollars: str = ""
    """Empty if no stage has a price."""
    received: str = ""
    is_timed: bool = False
    """Whether every stage has a time."""


@dataclass(frozen=True)
class OriginsSection(Section):
    """Hosts and languages."""

    macro = "origins"
    is_sampled = True
    found: origins.Origins = field(kw_only=True)


@dataclass(frozen=True)
class ClustersSection(Section):
    """A contact sheet per cluster of the shift."""

    macro = "clusters"
    is_sampled = True
    sheets: Sequence[cluster_sheets.ClusterSheet] = ()


@dataclass(frozen=True)
class FunnelSection(Section):
    """Rows in, kept and rejected, stage by stage."""

    macro = "funnel"
    is_sampled = True
    accounts: funnel.Funnel = field(kw_only=True)


@dataclass(frozen=True)
class SizesSection(Section):
    """Sizes and formats of the pictures."""

    macro = "sizes"
    is_sampled = True
    sizes: funnel.Sizes = field(kw_only=True)


@dataclass(frozen=True)
class SheetSection(Section):
    """Some pictures, and some that were rejected."""

    macro = "sheet"
    is_sampled = True
    thumbnails: Sequence[funnel.Thumbnail] = ()
    examples: Sequence[funnel.Example] = ()


@dataclass(frozen=True)
class DroppedSection(Section):
    """What curate dropped, by reason."""

    macro = "dropped"
    reasons: Sequence[charts.Bar] = ()


@dataclass(frozen=True)
class Link:
    """A stage in the lineage: its manifest, what it was made from, and how many rows it kept."""

    stage: str
    manifest: StageManifest
    digest: str
    inputs: dict[str, str]


@dataclass(frozen=True)
class LineageSection(Section):
    """What each table and model was made from."""

    macro = "lineage"
    links: Sequence[Link] = ()
    sources: Sequence[Mapping[str, str]] = ()
    recipe: str = ""
    commands: Sequence[str] = ()
    """The commands that made the run."""


@dataclass(frozen=True)
class SeedsSection(StageSection):
    """The measures of several trainings of the recipe together."""


@dataclass(frozen=True)
class CreditsSection(Section):
    """The credits of the pictures."""

    macro = "credits"
    lines: Sequence[str] = ()


def flow_section(run: Committed) -> FlowSection | None:
    """Return the graph of the stages that are complete."""
    if not run.stages:
        return None
    seconds = [manifest.seconds for manifest in run.stages.values()]
    stored = {stage: stage_costs.stored_bytes(run, stage) for stage in run.in_order()}
    received = run.total("download", "bytes")
    return FlowSection(
        "flow",
        "Stages",
        "What was made from what. A line that follows from others is left out.",
        graph=stage_graph.graph(run),
        costs=[stage_costs.cost(run, stage, num_bytes) for stage, num_bytes in stored.items()],
        total_time=stage_graph.duration(sum(value or 0.0 for value in seconds)),
        total_stored=charts.byte_size(sum(stored.values())),
        total_dollars=stage_costs.between(
            [bounds for stage in run.stages if (bounds := stage_costs.dollars(run, stage))]
        ),
        received=charts.byte_size(received) if received else "",
        is_timed=None not in seconds,
    )


def origins_section(run: Committed) -> OriginsSection | None:
    """Return hosts and languages if either is known."""
    found = origins.origins(run)
    intro = "Where the images come from, and the languages of their captions."
    return OriginsSection("origins", "Hosts and languages", intro, found=found) if found else None


def clusters_section(run: Committed) -> ClustersSection | None:
    """Return the clusters' sheets once shift is complete and images are stored."""
    sheets = cluster_sheets.cluster_sheets(run)
    intro = "The largest clusters of the shift, each by the train images nearest to its mean."
    return ClustersSection("clusters", "Clusters", intro, sheets) if sheets else None


def funnel_section(run: Committed) -> FunnelSection | None:
    """Return the row counts once there is a list."""
    if not {"plan", "download"} & set(run.stages):
        return None
    intro = "Every row of the list is kept or rejected for one reason: rows in = kept + rejected."
    return FunnelSection("funnel", "Funnel", intro, accounts=funnel.funnel(run))


def sizes_section(run: Committed) -> SizesSection | None:
    """Return the sizes if at least one picture is kept."""
    sizes = funnel.sizes(run)
    if sizes is None:
        return None
    intro = "The pictures as they were received, and what is stored of them."
    return SizesSection("sizes", "Sizes", intro, sizes=sizes)


def sheet_section(run: Committed) -> SheetSection | None:
    """Return the contact sheet and the rejected examples once there is either."""
    thumbnails, examples = funnel.contact_sheet(run), funnel.examples(run)
    if not thumbnails and not examples:
        return None
    intro = "Drawn at random, once and for all." if thumbnails else ""
    return SheetSection("pictures", "Pictures", intro, thumbnails, examples)


def dropped_section(run: Committed) -> DroppedSection:
    """Return what curate dropped."""
    return DroppedSection(
        "curate", *run.heading("curate"), funnel.reasons(run.stages["curate"].rows.rejected)
    )


def seeds_section(run: Committed) -> SeedsSection | None:
    """Return the measures over seeds if `corgi seeds` noted them for the run's current evaluation."""
    noted, evaluated = run.facts.get("seeds"), run.stages.get("evaluate")
    if not noted or evaluated is None or noted["evaluate"] != evaluated.path:
        return None
    seeds = ", ".join(map(str, noted["seeds"]))
    intro = f"Seeds {seeds} of prior and decoder; all else is shared. Means, with the 95 % interval over seeds (Student)."
    return SeedsSection("seeds", "Several seeds", intro, tables=figures.tables(noted["measures"], "steps"))


def lineage_section(run: Committed) -> LineageSection | None:
    """Return the lineage of the stages that are complete."""
    if not run.stages:
        return None
    paths = {manifest.path for manifest in run.stages.values()}
    links = [
        Link(
            stage,
            manifest,
            manifest.digest,
            {name: "" if path in paths else path for name, path in manifest.inputs.items()},
        )
        for stage, manifest in run.stages.items()
    ]
    recipe = run.facts.get("recipe")
    intro = "What each table and model was made from."
    return LineageSection(
        "lineage",
        "Lineage",
        intro,
        links,
        _sources(run),
        pretty(recipe) if recipe else "",
        [f"{name} {words}" for name, words in run.facts.get("commands", {}).items()],
    )


def credits_section(run: Committed) -> CreditsSection | None:
    """Return the credit of the recipe, then those that stages noted among their facts."""
    recipe = (run.facts.get("recipe") or {}).get("plan") or {}
    noted = [shard.facts.get("credit") for stage in run.stages for shard in run.shards(stage)]
    lines = list(dict.fromkeys(str(line) for line in (recipe.get("credit"), *noted) if line))
    return CreditsSection("credits", "Credits", lines=lines) if lines else None


BEFORE_THE_STAGES: Sequence[Callable[[Committed], Section | None]] = (
    flow_section,
    funnel_section,
    origins_section,
    sizes_section,
    sheet_section,
)
AFTER_THE_STAGES: Sequence[Callable[[Committed], Section | None]] = (
    seeds_section,
    lineage_section,
    credits_section,
)
"""The sections that belong to no stage, in the order of the page."""


def pretty(value: object) -> str:
    """Return a JSON value as indented text."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _sources(run: Committed) -> list[dict[str, str]]:
    """Return the lists of URLs, each sha256 once, as recorded in every shard of the plan."""
    by_sha256: dict[str, dict[str, str]] = {}
    for shard in run.shards("plan")[:1]:
        for source in shard.facts.get("sources", []):
            by_sha256[source["sha256"]] = source
    return list(by_sha256.values())
