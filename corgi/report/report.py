"""report.html: one page about a run that needs no other files and grows with every stage."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeGuard

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from corgi.report import charts, figures, funnel, grid_table, intervals, stage_charts, stage_graph
from corgi.report.committed import Committed
from corgi.report.sections import (
    AFTER_THE_STAGES,
    BEFORE_THE_STAGES,
    EmbedSection,
    Figure,
    Section,
    StageSection,
    clusters_section,
    dropped_section,
    pretty,
)
from corgi.tables.run import Run

_TABLE_STAGES = ("plan", "download", "embed", "curate")
_SHOWN_JSON = ("metrics", "statistics")
_DRAWN_JSON = ("curves", "scores", "grid_rows")
"""Documents that are drawn as charts, or from which charts are drawn; their JSON is not shown."""
_NOT_CURVES = ("step", "epoch", "time", "seconds", "elapsed")
_LAST_CURVES = ("lr", "learning_rate", "grad_norm")
_MAX_CURVES = 8


def write(run: Run) -> None:
    """Write report.html, about the stages that are complete, into the run's folder.

    Raises:
        StorageError: a committed file that the report shows is missing or changed.

    """
    run.publish("report.html", render(run).encode())


def render(run: Run) -> str:
    """Return the page; the same run gives the same text."""
    committed = Committed(run)
    sections = list(_sections(committed))
    return _template().render(
        name=committed.name,
        facts=committed.facts,
        recipe=committed.facts.get("recipe") or {},
        stages=list(committed.stages),
        headline=_headline(committed),
        sections=sections,
        sampled=(len(committed.sample), len(committed.stages["download"].shards))
        if committed.is_sampled
        else None,
        chart=charts,
        graph=stage_graph,
    )


@cache
def _template() -> Template:
    templates = PackageLoader("corgi.report", "")
    page = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters["number"] = charts.number
    return page.get_template("report.html.j2")


def _headline(run: Committed) -> dict[str, str]:
    """Return the numbers at the top of the page."""
    counts = {}
    if "plan" in run.stages:
        counts["rows listed"] = run.stages["plan"].rows.rows_in
    if "download" in run.stages:
        counts["pictures"] = run.num_rows("download", "images")
        counts["captions"] = run.num_rows("download", "captions")
    if "curate" in run.stages:
        counts["pictures used"] = run.stages["curate"].rows.kept
    return {name: charts.number(count) for name, count in counts.items()}


def _sections(run: Committed) -> Iterable[Section]:
    """Yield the sections for which there is data, those of stages in the order of the flow."""
    yield from filter(None, (of(run) for of in BEFORE_THE_STAGES))
    for stage in run.in_order():
        if stage == "embed":
            yield _embed(run)
        elif stage == "curate":
            yield dropped_section(run)
        elif stage not in _TABLE_STAGES:
            yield _model(run, stage)
        if stage == "shift":
            yield from filter(None, [clusters_section(run)])
    yield from filter(None, (of(run) for of in AFTER_THE_STAGES))


def _embed(run: Committed) -> EmbedSection:
    chart = funnel.similarities(run)
    facts = _facts(run, "embed")
    return EmbedSection(
        "embed",
        *run.heading("embed"),
        curves=[chart] if chart else [],
        tables=figures.tables(facts),
        notes=figures.notes(facts),
    )


def _model(run: Committed, stage: str) -> StageSection:
    """Return the section of a stage that commits models or measurements: notes, pictures, numbers, curves."""
    title, intro = run.heading(stage)
    documents = run.json(stage)
    shown = {
        name: value for name, value in documents.items() if name in _SHOWN_JSON and isinstance(value, dict)
    }
    logs = run.json_lines(stage)
    drawn = _drawn(stage, documents)
    pictures = run.pictures(stage)
    grid = _grid(documents, pictures)
    measured_before = {name for value in shown.values() for name in value}
    facts = {name: value for name, value in _facts(run, stage).items() if name not in measured_before}
    measured = [values for values in (facts, *shown.values(), _last_values(stage, logs)) if values]
    return StageSection(
        stage,
        title,
        intro,
        notes=list(dict.fromkeys(note for values in measured for note in figures.notes(values))),
        plates=[
            Figure(_figure_name(name), funnel.data_uri(data, "image/png"))
            for name, data in _grid_first(pictures)
            if not (drawn and name.startswith("plot_")) and not (grid and name == "grid")
        ],
        grid=grid,
        tables=[
            table
            for values in measured
            for table in figures.tables(values, "steps" if stage == "evaluate" else "")
        ],
        curves=[*drawn, *_curves(stage, logs)],
        interval_charts=intervals.interval_charts(_of_pictures(shown.get("metrics", {}))),
        documents={
            figures.label(name): pretty(value)
            for name, value in documents.items()
            if name not in shown and name not in _DRAWN_JSON
        },
    )


def _drawn(stage: str, documents: Mapping[str, Any]) -> list[charts.Chart]:
    """Return the charts of data that a stage commits for drawing; they replace the plots that it commits itself."""
    if "curves" in documents:
        return stage_charts.shift_charts(documents["curves"])
    if stage == "comparison" and isinstance(documents.get("scores"), list):
        return stage_charts.comparison_charts(documents["scores"])
    return []


def _grid(documents: Mapping[str, Any], pictures: Mapping[str, bytes]) -> list[grid_table.GridGroup]:
    if "grid_rows" not in documents or "grid" not in pictures:
        return []
    return grid_table.grid_groups(documents["grid_rows"], pictures["grid"])


def _of_pictures(metrics: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part of an evaluation's metrics that is judged picture by picture, or all metrics if there is no such part."""
    part = metrics.get("pictures")
    return part if isinstance(part, Mapping) else metrics


def _facts(run: Committed, stage: str) -> dict[str, object]:
    """Return the facts of a stage's only shard, or of its shard `model` if it has further shards, in the order they were written."""
    shards = run.shards(stage)
    chosen = [shard for shard in shards if len(shards) == 1 or shard.shard == "model"]
    facts = [run.store.read_shard(shard.path).facts for shard in chosen]
    return {name: value for shard_facts in facts for name, value in shard_facts.items() if name != "credit"}


def _grid_first(pictures: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    return sorted(pictures.items(), key=lambda item: (not item[0].startswith("grid"), item[0]))


def _figure_name(name: str) -> str:
    return figures.label(name.removeprefix("plot_"))


def _variant(stage: str, table: str) -> str:
    """Return the name of the training whose metrics a file has: `metrics_shifted` is that of shifted."""
    return figures.label(table.removeprefix("metrics").strip("_")) or stage


def _curves(stage: str, logs: Mapping[str, Sequence[Mapping[str, object]]]) -> list[charts.Chart]:
    """Return one chart per logged metric with a line per training: losses first, learning rate last."""
    names = {
        name
        for lines in logs.values()
        for line in lines
        for name, value in line.items()
        if _is_metric(value, name)
    }
    charted = []
    for name in sorted(
        names, key=lambda name: (name in _LAST_CURVES, name != "loss", "loss" not in name, name)
    )[:_MAX_CURVES]:
        lines = {_variant(stage, table): _line(entries, name) for table, entries in logs.items()}
        chart = charts.line_chart(figures.label(name), lines, "by step")
        if chart is not None:
            charted.append(chart)
    return charted


def _line(entries: Sequence[Mapping[str, object]], name: str) -> tuple[list[float], list[float]]:
    points = [
        (float(step), float(value))
        for step, value in ((entry.get("step"), entry.get(name)) for entry in entries)
        if _is_metric(step, "step", ()) and _is_metric(value, name)
    ]
    return [step for step, _ in points], [value for _, value in points]


def _last_values(stage: str, logs: Mapping[str, Sequence[Mapping[str, object]]]) -> dict[str, object]:
    """Return the last logged value of every metric, by training."""
    last: dict[str, dict[str, object]] = {}
    for table, entries in logs.items():
        values: dict[str, object] = {}
        for entry in entries:
            values |= {
                name: value for name, value in entry.items() if _is_metric(value, name, _NOT_CURVES[1:])
            }
        if values:
            last[_variant(stage, table)] = values
    return {"last logged": last if len(last) > 1 else next(iter(last.values()))} if last else {}


def _is_metric(value: object, name: str, without: Sequence[str] = _NOT_CURVES) -> TypeGuard[int | float]:
    return name not in without and isinstance(value, (int, float)) and not isinstance(value, bool)
