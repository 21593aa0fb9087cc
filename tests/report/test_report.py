import dataclasses
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from corgi.flow import inspect
from corgi.report import charts, report
from corgi.report.funnel import NUM_THUMBNAILS
from corgi.settings.errors import StorageError
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from tests.support import tables

HOSTILE = "<script>alert('x')</script> & \"quoted\""


def page(run: Run) -> str:
    report.write(run)
    return (run.folder / "report.html").read_text()


def anchors(text: str) -> list[str]:
    return re.findall(r'<section id="([^"]+)"', text)


def model_stage(run: Run, stage: str, facts=None, **files) -> None:
    rows = RowCounts(rows_in=9, kept=9)
    tables.commit_stage(run, stage, {"all": tables.Output(rows, {}, files, facts or {})}, ["download"])


def log(values: list[float], **more: float) -> bytes:
    lines = [{"step": 10 * step, "loss": value, **more} for step, value in enumerate(values)]
    return "\n".join(map(json.dumps, lines)).encode()


def section(text: str, anchor: str) -> str:
    return text.split(f'<section id="{anchor}"')[1].split("</section>")[0]


def words_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_an_empty_run_has_a_page_without_sections(tmp_path):
    assert anchors(page(tables.new_run(tmp_path))) == []


def test_it_grows_with_each_stage_and_a_stage_that_is_not_there_has_no_section(tmp_path):
    pictures = tables.some_pictures()
    run = tables.new_run(tmp_path)
    tables.commit_plan(run, pictures)
    assert anchors(page(run)) == ["flow", "funnel", "origins", "lineage"]
    tables.commit_download(run, pictures)
    before = ["flow", "funnel", "origins", "sizes", "pictures"]
    assert anchors(page(run)) == [*before, "lineage"]
    tables.commit_embed(run, pictures)
    tables.commit_curate(run, pictures, {})
    assert anchors(page(run)) == [*before, "embed", "curate", "lineage"]
    for stage in ("prior", "decoder", "evaluate"):
        assert stage not in anchors(page(run))
        model_stage(run, stage)
        assert stage in anchors(page(run))


def test_sections_have_the_order_and_the_headings_of_the_pipeline(tmp_path):
    run = tables.tiny_run(tmp_path)
    for stage in ("decoder", "other", "prior"):
        model_stage(run, stage)
    of_stages = [name for name in anchors(page(run)) if name in ("decoder", "other", "prior")]
    assert of_stages == ["decoder", "other", "prior"]  # as recorded, where nothing tells the order
    run.note(order=["plan", "prior", "decoder"], headings={"prior": ["The prior", "Centre & scale."]})
    text = page(run)
    assert [name for name in anchors(text) if name in of_stages] == ["prior", "decoder", "other"]
    assert "The prior Centre &amp; scale." in words_of(section(text, "prior"))
    assert "Decoder" in words_of(section(text, "decoder"))


@pytest.mark.parametrize("num_rejected", [0, 3])
@pytest.mark.parametrize("num_shards", [1, 2])
def test_no_row_and_no_row_kept_have_a_page_after_each_stage(tmp_path, num_rejected, num_shards):
    none = tables.some_pictures(0, num_rejected)
    run = tables.new_run(tmp_path)
    tables.commit_plan(run, none, num_shards)
    hosts = ["origins"] if num_rejected else []
    planned = [name for name in anchors(page(run)) if name != "origins"]  # the first shard may be empty
    assert planned == ["flow", "funnel", "lineage"]
    tables.commit_download(run, none, num_shards)
    rejected = [*hosts, "pictures"] if num_rejected else []  # examples of what was rejected
    assert anchors(page(run)) == ["flow", "funnel", *rejected, "lineage"]
    tables.commit_embed(run, none, num_shards)
    tables.commit_curate(run, none, {}, num_shards)
    assert anchors(page(run)) == ["flow", "funnel", *rejected, "embed", "curate", "lineage"]
    stages = ("plan", "download", "embed", "curate")
    assert [line.split()[0].strip(":") for line in inspect.status(run)][: len(stages)] == list(stages)
    assert any(line.startswith("curate: ") for line in inspect.lineage(run))


def test_every_section_is_in_the_table_of_contents(tmp_path):
    text = page(tables.tiny_run(tmp_path))
    assert re.findall(r'<li><a href="#([^"]+)"', text) == anchors(text)


def test_funnel_numbers_equal_the_manifests(tmp_path):
    run = tables.tiny_run(tmp_path)
    words = words_of(section(page(run), "funnel"))
    for stage, unit in (
        ("plan", "rows of the list"),
        ("download", "rows of the list"),
        ("curate", "pictures"),
    ):
        rows = run.stages()[stage].rows
        assert f"{stage} {unit} {rows.rows_in} {rows.kept} {sum(rows.rejected.values())}" in words
        for reason, count in rows.rejected.items():
            assert f"{reason.text} {count}" in words
    assert "URLs in the list 15 pictures downloaded 12 pictures embedded 12 pictures used 11" in words


def test_splits_count_urls_downloaded_and_used(tmp_path):
    pictures = [
        tables.Picture("http://a.test/1", (("one", "full"),), "train"),
        tables.Picture("http://a.test/2", (("two", "full"),), "test"),
        tables.Picture("http://a.test/3", (("three", "full"),), "test", Reason.TIMEOUT),
    ]
    words = words_of(section(page(tables.tiny_run(tmp_path, pictures, 1)), "funnel"))
    assert "train 1 1 0 val 0 0 0 test 2 1 1" in words


def test_every_reason_has_a_text_of_its_own():
    assert all(reason.text for reason in Reason)
    assert len({reason.text for reason in Reason}) == len(Reason)


def test_what_the_data_says_is_never_markup(tmp_path):
    url = "http://a.test/<img src=x onerror=alert(1)>"
    pictures = [
        tables.Picture("http://a.test/kept", ((HOSTILE, "full"),)),
        tables.Picture("http://a.test/other", (("other", "full"),)),
        tables.Picture(url, (("lost", "full"),), reason=Reason.HTTP_STATUS),
    ]
    run = tables.new_run(tmp_path, plan={"credit": HOSTILE})
    tables.commit_plan(run, pictures)
    tables.commit_download(run, pictures)
    model_stage(
        run, "evaluate", {HOSTILE: HOSTILE}, metrics=(".json", json.dumps({"notes": [HOSTILE]}).encode())
    )
    text = page(run)
    assert "<script" not in text
    assert "<img src=x" not in text
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;quoted&#34;"
    assert escaped in section(text, "pictures")
    assert escaped in section(text, "evaluate")
    assert escaped in section(text, "credits")
    assert "http://a.test/&lt;img src=x onerror=alert(1)&gt;" in section(text, "pictures")


def test_it_needs_nothing_beside_it(tmp_path):
    run = tables.tiny_run(tmp_path)
    model_stage(run, "evaluate", grid=(".png", tables.png()))
    text = page(run)
    sources = re.findall(r'(?:src|href)="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert sources
    assert [source for source in sources if not source.startswith(("data:", "#"))] == []
    assert "@import" not in text
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = tables.tiny_run(tmp_path)
    first = page(run)
    report.write(Run.open(run.folder))
    assert (run.folder / "report.html").read_text() == first


def test_contact_sheet_shows_used_pictures_only_with_caption_and_split(tmp_path):
    pictures = tables.some_pictures(60)
    run = tables.tiny_run(tmp_path, pictures)
    dropped = pictures[0]
    cells = re.findall(r"<li>(<span class=\"cell\">.*?)</li>", section(page(run), "pictures"), re.DOTALL)
    by_caption = {p.captions[0][0]: p for p in pictures if p.reason is None and p is not dropped}
    assert len(cells) == NUM_THUMBNAILS
    for cell in cells:
        caption = re.findall(r'alt="([^"]*)"', cell)[0]
        assert cell.startswith('<span class="cell"><img src="data:image/jpeg;base64,')
        split = by_caption[caption].split
        label = "train" if split == "train" else f"held out, {split}"
        assert f">{label}</span>" in cell


def test_a_column_named_credit_stands_beside_each_picture_of_the_sheet(tmp_path):
    pictures = [
        dataclasses.replace(one, saved=(("credit", f"Set {number}, CC BY 4.0"), ("style", "flat")))
        for number, one in enumerate(tables.some_pictures(6))
    ]
    run = tables.tiny_run(tmp_path, pictures)
    cells = re.findall(r"<li>(<span class=\"cell\">.*?)</li>", section(page(run), "pictures"), re.DOTALL)
    shown = {re.findall(r'alt="([^"]*)"', cell)[0]: cell for cell in cells}
    used = [one for one in pictures[1:] if one.reason is None]
    assert len(shown) == len(used)
    assert all(dict(one.saved)["credit"] in shown[one.captions[0][0]] for one in used)
    assert "flat" not in "".join(cells)


def test_rejected_examples_name_reason_and_url(tmp_path):
    pictures = tables.some_pictures(4, 12)
    text = section(page(tables.tiny_run(tmp_path, pictures)), "pictures")
    shown = re.findall(r'<td class="text">([^<]*)</td><td class="text"><span class="hex">([^<]*)<', text)
    reasons = {p.url: p.reason.text for p in pictures if p.reason is not None}
    reasons[pictures[0].url] = Reason.EXACT_DUPLICATE.text
    assert len(shown) == 10
    assert all(reasons[url] == reason for reason, url in shown)
    assert text.count("HTTP 404") == 3


def test_sizes_and_formats_are_those_of_the_tables(tmp_path):
    run = tables.tiny_run(tmp_path)
    words = words_of(section(page(run), "sizes"))
    stored = sum(e.size for s in run.shards("download") for e in s.files if e.table == "images")
    assert "Stored as image/png 12" in words
    served = sum((Counter(shard.facts["formats"]) for shard in run.shards("download")), Counter())
    assert len(served) == 3
    ordered = sorted(served.items(), key=lambda item: (-item[1], item[0]))
    assert f"Formats received {' '.join(f'{name} {number}' for name, number in ordered)} Stored as" in words
    assert f"{stored / 1000:#.3g} kB" in words


def test_a_download_that_does_not_tell_formats_shows_what_is_stored(tmp_path):
    run, pictures = tables.new_run(tmp_path), tables.some_pictures()
    tables.commit_plan(run, pictures)
    tables.commit_download(run, pictures, tells_formats=False)
    words = words_of(section(page(run), "sizes"))
    assert "Formats received" not in words
    assert "Stored as image/png 12" in words


def test_metrics_are_tables_by_method_and_steps(tmp_path):
    run = tables.tiny_run(tmp_path)
    steps = {"64": {"cosine": 0.25, "frechet": 0.5}, "2": {"cosine": 0.125, "frechet": 1234.5}}
    metrics = {"prior": {"shifted": steps, "dalle2": steps}, "notes": ["fit, not generalisation"]}
    model_stage(run, "evaluate", {"pictures": 12345}, metrics=(".json", json.dumps(metrics).encode()))
    words = words_of(section(page(run), "evaluate"))
    rows = "2 0.125 {} 64 0.250 0.500"
    assert f"steps cosine frechet shifted {rows} dalle2 {rows}".replace("{}", "1,234") in words
    assert "pictures 12,345" in words
    assert "fit, not generalisation" in words


def test_grid_comes_before_the_other_pictures_of_evaluate(tmp_path):
    run = tables.tiny_run(tmp_path)
    model_stage(run, "evaluate", curves=(".png", tables.png(8)), grid=(".png", tables.png()))
    assert re.findall(r"<figcaption>(.*?)</figcaption>", section(page(run), "evaluate")) == ["grid", "curves"]


def test_training_curves_have_one_line_a_variant(tmp_path):
    run = tables.tiny_run(tmp_path)
    values = [1.0, 0.5, 0.25, 0.2]
    model_stage(
        run,
        "prior",
        {"parameters": 2_345_678},
        metrics_shifted=(".jsonl", log(values, lr=1e-3)),
        metrics_dalle2=(".jsonl", log(values[::-1], lr=1e-3)),
    )
    text = section(page(run), "prior")
    assert text.count("<polyline") == 2
    assert "shifted 30 0.200 0.00100 dalle2 30 1 0.00100" in words_of(text)
    assert "2,345,678" in text


@pytest.mark.parametrize(
    "data", [b"", b'{"step": 1}\n', b'{"step": 1, "loss": NaN}\n{"step": 2, "loss": null}\n']
)
def test_logs_without_anything_to_draw_do_not_break_the_page(tmp_path, data):
    run = tables.tiny_run(tmp_path)
    model_stage(run, "decoder", metrics=(".jsonl", data))
    text = page(run)
    assert "decoder" in anchors(text)
    assert "<polyline" not in section(text, "decoder")


def test_lineage_names_keys_digests_manifests_inputs_and_lists(tmp_path):
    run = tables.tiny_run(tmp_path)
    text = section(page(run), "lineage")
    for manifest in run.stages().values():
        for part in (manifest.key, manifest.digest, manifest.path, manifest.code):
            assert part in text
    assert "curate download, embed" in words_of(text)
    before, folded = text.split("<summary>Keys, digests and manifests</summary>")
    assert all(
        manifest.digest in folded and manifest.digest not in before for manifest in run.stages().values()
    )
    assert "corgi run tiny.yaml" in before
    assert "lists/tiny.parquet" in before
    assert "lists/tiny.parquet, sha256 " + "5e" * 32 in words_of(folded)
    assert "<summary>The resolved recipe</summary>" in text


def test_credits_come_from_the_recipe_and_from_facts_once_each(tmp_path):
    run = tables.new_run(tmp_path, plan={"credit": "Pictures: A, CC BY-SA 4.0"})
    tables.commit_plan(run, tables.some_pictures())
    model = tables.Output(RowCounts(rows_in=0, kept=0), facts={"credit": "Weights: B"})
    tables.commit_stage(run, "tower", {"a": model, "b": model})
    assert words_of(section(page(run), "credits")).endswith("Credits Pictures: A, CC BY-SA 4.0 Weights: B")


def test_a_changed_table_is_one_line_and_the_old_page_stays(tmp_path):
    run = tables.tiny_run(tmp_path)
    before = page(run)
    shard = run.shards("download")[0]
    path = run.store.path(shard, "images")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(StorageError, match="sha256"):
        report.write(run)
    assert (run.folder / "report.html").read_text() == before


def test_only_a_sample_of_a_large_run_is_read_and_the_page_says_so(tmp_path, monkeypatch):
    run = tables.tiny_run(tmp_path, tables.some_pictures(40), 4)
    monkeypatch.setattr("corgi.report.committed.MAX_PICTURE_BYTES", 1)
    text = page(run)
    assert "first 1 of 4 shards" in text
    assert "pictures downloaded 40" in words_of(section(text, "funnel"))


def test_it_imports_neither_torch_nor_ray():
    code = "import sys, corgi.report.report; print([m for m in ('torch', 'ray', 'matplotlib') if m in sys.modules])"
    folder = Path(report.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_stages_are_drawn_with_rows_and_time_and_their_costs_add_up(tmp_path):
    run = tables.tiny_run(tmp_path)
    text = section(page(run), "flow")
    words = words_of(text)
    assert text.count('<rect class="box"') == len(run.stages())
    for stage, manifest in run.stages().items():
        assert f"{manifest.rows.kept} rows" in words
        stored = sum(entry.size for shard in run.shards(stage) for entry in shard.files)
        assert (
            f"{stage} {manifest.rows.rows_in} {manifest.rows.kept} 2 \N{EN DASH} {charts.byte_size(stored)}"
            in words
        )
    assert "made before times were kept" in words
    assert "embed from download" in text


def test_what_stages_cost_is_shown_with_its_sum_until_they_are_made_again(tmp_path):
    run = tables.tiny_run(tmp_path)
    assert "dollars" not in section(page(run), "flow")
    plan, download = (run.stages()[stage].path for stage in ("plan", "download"))
    costs = {
        "plan": {"manifest": plan, "between": [1.0, 1.0]},
        "curate": {"manifest": run.stages()["curate"].path, "between": [0.0001, 0.0002]},
        "download": {"manifest": download, "between": [2.0, 4.0]},
    }
    run.note(dollars=costs)
    words = words_of(section(page(run), "flow"))
    assert "B 2 to 4 " in words
    assert "B under 0.01 " in words
    assert "Together 3 to 5 dollars" in words
    run.note(dollars={**costs, "download": {"manifest": "of another time", "between": [2.0, 4.0]}})
    words = words_of(section(page(run), "flow"))
    assert "2 to 4" not in words
    assert "Together 1 dollars" in words


def test_no_digest_is_in_the_readers_way(tmp_path):
    run = tables.tiny_run(tmp_path)
    run.note(commands={"corgi run": "tiny.yaml plan.seed=3"})
    facts = {
        "shards": ["ab" * 16] * 16,
        "autoencoder": "cd" * 16,
        "packages": {"a": {"sha256": "ef" * 32, "file": "a.bin"}},
    }
    model_stage(run, "decoder", facts)
    seen, _ = page(run).split("<summary>The resolved recipe</summary>")
    words = words_of(seen.split("</style>")[1])
    commit = str(run.facts.get("commit"))
    assert re.findall(r"\b[0-9a-f]{16,}\b", words.replace(commit, "")) == []
    assert "a.bin" in words
    assert "corgi run tiny.yaml plan.seed=3" in words
    assert commit in words  # once, where it says how to make the run again


def test_a_grid_with_facts_is_a_table_of_captions_seeds_and_training_images(tmp_path):
    run = tables.tiny_run(tmp_path)
    row = {
        "label": "TRAIN",
        "meaning": "recall",
        "caption": "a <fox>",
        "credit": "Set, CC BY",
        "seed": 12,
        "nearest": ["ab" * 16],
        "top": 0,
    }
    facts = {
        "cell": 8,
        "columns": ["true picture", "training picture nearest to it"],
        "lefts": [0, 8],
        "rows": [row],
    }
    model_stage(
        run, "evaluate", grid=(".png", tables.png(16, 8)), grid_rows=(".json", json.dumps(facts).encode())
    )
    text = section(page(run), "evaluate")
    words = words_of(text)
    assert (
        "TRAIN Recall. caption, seed true picture training picture nearest to it a &lt;fox&gt; seed 12 Set, CC BY"
        in words
    )
    assert text.count("<img") == 2
    assert 'alt="true picture: a &lt;fox&gt;"' in text
    assert "abababab…" in words


def test_figures_are_drawn_in_one_style_where_their_numbers_are_committed(tmp_path):
    run = tables.tiny_run(tmp_path)
    score = {
        "space": "own",
        "arm": "shifted",
        "candidates": 1,
        "sampler": "ddim",
        "R@10": 0.5,
        "two_sample_cosine": 0.2,
    }
    scores = [
        {**score, "steps": steps, "seed": seed, "frechet": steps + seed}
        for steps in (2, 8)
        for seed in (0, 1)
    ]
    files = {"scores": (".json", json.dumps(scores).encode()), "plot_own": (".png", tables.png())}
    model_stage(run, "comparison", **files)
    text = section(page(run), "comparison")
    assert "<img" not in text
    assert text.count("<svg") == 3
    assert "own: Frechet distance" in words_of(text)


def test_intervals_of_an_evaluation_are_drawn(tmp_path):
    run = tables.tiny_run(tmp_path)
    told = {"similarity": 0.5, "similarity, low 95%": 0.25, "similarity, high 95%": 0.75, "R@5": 1.0}
    metrics = {"pictures": {"TRAIN": {"own": {"from prior": told}}}}
    model_stage(run, "evaluate", metrics=(".json", json.dumps(metrics).encode()))
    words = words_of(section(page(run), "evaluate"))
    assert "TRAIN, own, similarity mean, 95 % interval" in words
    assert "from prior 0.500 (0.250 to 0.750)" in words
