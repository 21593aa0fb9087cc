"""A recipe: differences in YAML, overrides before validation, one line for whatever is wrong."""

import json
import re
from pathlib import Path

import pytest

from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe, load
from corgi.settings.training import TrainingSettings

BASE = "name: tiny\nembed: {towers: [{name: rn, model: RN50, pretrained: random}]}\n"


@pytest.fixture
def recipe_file(tmp_path: Path):
    def write(text: str = "", base: str = BASE) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(base + text)
        return path

    return write


def line_of(path: Path, *overrides: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(path, list(overrides))
    assert refused.value.exit_code == 2
    line = str(refused.value)
    assert "\n" not in line
    assert "nothing was started" in line
    return line


def test_class_default_gives_way_to_recipe_and_recipe_to_command_line(recipe_file):
    path = recipe_file("shift: {num_clusters: 5, scale: 2.0}\n")
    plain, overridden = load(path), load(path, ["shift.num_clusters=7"])
    assert plain.shift.num_iterations == 25
    assert (plain.shift.num_clusters, plain.shift.scale) == (5, 2.0)
    assert (overridden.shift.num_clusters, overridden.shift.scale) == (7, 2.0)


def test_a_nested_section_holds_differences_from_the_section_it_lies_in(recipe_file):
    tower = load(recipe_file(), ["tower.training.num_steps=7"]).tower
    assert tower is not None
    training = tower.training
    assert training.num_steps == 7
    assert (training.lr, training.precision, training.global_batch) == (1e-3, "fp32", 512)
    assert training.lr != TrainingSettings().lr


def test_one_seed_reaches_every_stage_that_sets_none(recipe_file):
    recipe = load(recipe_file('seed: "3"\nshift: {seed: 9}\n'), ["tower.embed_dim=16"])
    assert recipe.tower is not None
    assert recipe.shift.seed == 9
    sections = {name: getattr(recipe, name) for name in type(recipe).model_fields if name != "shift"}
    seeds = {name: section.seed for name, section in sections.items() if hasattr(section, "seed")}
    assert set(seeds.values()) == {recipe.seed} == {3}
    assert set(seeds) >= {"plan", "tower", "curate", "prior", "autoencoder", "decoder", "evaluate", "compare"}


def test_a_learned_shift_asks_for_a_diagonal_start(recipe_file):
    learned = ["prior.learned_shift=true", "prior.training.zero_stage=0"]
    assert load(recipe_file(), learned).prior.learned_shift
    with pytest.raises(SettingsError, match=r"shift\.covariance=diagonal, not low_rank"):
        load(recipe_file(), [*learned, "shift.covariance=low_rank"])


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("prior.dpeth=3", "prior.dpeth"),
        ("prior.training.batch=3", "prior.training.batch"),
        ("tower.training.batch=3", "tower.training.batch"),
        ("embed.towers=[{name: a, model: b, pretrained: c, weights: d}]", "embed.towers.0.weights"),
        ("dowload.image_size=3", "dowload"),
    ],
)
def test_an_unknown_key_names_its_path_and_what_there_is(recipe_file, override, path):
    line = line_of(recipe_file(), override)
    assert f"{path}: no such setting, there are " in line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prior.depth=0", "prior.depth=0: Input should be greater than or equal to 1"),
        ("prior.depth=deep", "prior.depth='deep': "),
        ("prior.schedule=square", "'linear', 'cosine', "),
        ("prior.guidance=.inf", "prior.guidance=inf: Input should be a finite number"),
        ("prior.width=34", "prior: width 34 must be even and a multiple of heads 32"),
        ("prior.sample_steps=2000", "prior: sample_steps 2000 must be at most num_timesteps 1000"),
        ("prior.training.betas=[0.9,2]", "prior.training.betas.1=2: "),
        ("evaluate.steps=[2,2000]", "evaluate.steps=(2, 2000) must be at most prior.num_timesteps=1000"),
        (
            "download.engine=img2dataset",
            "download: engine img2dataset neither checks addresses nor limits bytes",
        ),
        ("download.resolve=[nowhere]", "download.resolve.0='nowhere': "),
        ("plan.seed=-1", "plan.seed=-1: "),
        ("name=store", "name='store': "),
        ("name=a/b", "name='a/b': "),
        ("root=ftp://host/runs", "root='ftp://host/runs': root is a folder or an s3://"),
        ("scratch=s3://bucket/x", "scratch is a folder on a disk"),
        ("plan=3", "plan=3: "),
    ],
)
def test_a_wrong_value_is_one_line_with_path_value_and_what_is_allowed(recipe_file, override, said):
    assert said in line_of(recipe_file(), override)


def test_img2dataset_runs_with_a_trusted_list(recipe_file):
    assert (
        load(recipe_file(), ["download.engine=img2dataset", "download.trust_list=true"]).download.engine
        == "img2dataset"
    )


def test_a_recipe_without_a_name_says_so_without_printing_itself(recipe_file):
    line = line_of(
        recipe_file(base="", text="plan: {seed: 77}\nembed: {towers: [{name: a, model: b, pretrained: c}]}\n")
    )
    assert line.startswith("name: Field required;")
    assert "77" not in line


def test_a_missing_recipe_is_one_line(tmp_path):
    assert "no.yaml does not exist" in line_of(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    "data",
    [
        b"a: [",
        b"\xff\xfe\x00",
        b"- a\n- b",
        b"5",
        b"a: !!python/object/apply:os.getpid []",
        b"a: &b [*b",
        b"a: 1\na: 2",
    ],
)
def test_what_is_no_recipe_is_one_line(tmp_path, data):
    path = tmp_path / "bad.yaml"
    path.write_bytes(data)
    assert str(path) in line_of(path)


def test_a_folder_is_no_recipe(tmp_path):
    assert "cannot be read" in line_of(tmp_path)


@pytest.mark.parametrize("overrides", [["a b"], ["a", "b"], ["prior.depth"], ["prior.depth=[}"]])
def test_a_malformed_override_is_one_line(recipe_file, overrides):
    line_of(recipe_file(), *overrides)


def test_one_list_may_be_given_without_brackets(recipe_file):
    assert load(recipe_file(), ["plan.input=a.csv"]).plan.input == ("a.csv",)


@pytest.mark.parametrize(
    ("overrides", "stage", "said"),
    [
        (["embed.towers=[]"], "embed", "embed cannot run: embed.towers is empty"),
        (
            ["embed.towers=[{name: own, model: own, pretrained: trained}]"],
            "embed",
            "asks for the trained tower",
        ),
        (["prior.num_text_tokens=8"], "prior", "prior.num_text_tokens=8 reads word encodings"),
    ],
)
def test_what_is_missing_is_asked_for_by_the_stage_that_needs_it(recipe_file, overrides, stage, said):
    recipe = load(recipe_file(), overrides)
    recipe.require({"plan", "download", "tower"})
    with pytest.raises(SettingsError, match=re.escape(said)) as refused:
        recipe.require({"plan", stage})
    assert "\n" not in str(refused.value)
    load(recipe_file()).require({"plan", stage})


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_perceptual_loss_without_any_tower_is_refused_before_anything_starts(kind: str) -> None:
    """Beside vectors made elsewhere a recipe needs no tower, but the loss does."""

    def recipe(**autoencoder: object) -> Recipe:
        return Recipe.model_validate(
            {"name": "vectors", "embed": {"input": ["vectors"]}, "autoencoder": autoencoder}
        )

    with pytest.raises(SettingsError, match=r"^autoencoder cannot run: .* CLIP tower") as refused:
        recipe(kind=kind).require({"embed", "autoencoder"})
    assert "\n" not in str(refused.value)
    recipe(kind=kind, conv={"perceptual_weight": 0}).require({"embed", "autoencoder"})
    recipe(kind="pixels").require({"embed", "autoencoder"})
    recipe(kind=kind).require({"embed", "curate"})


def test_a_column_of_concepts_must_be_saved_by_the_plan(recipe_file):
    said = line_of(recipe_file(), "evaluate.concept_col=concept", "plan.save_additional_columns=[style]")
    assert "evaluate.concept_col=concept must be one of plan.save_additional_columns" in said
    saved = ["evaluate.concept_col=concept", "plan.save_additional_columns=[style, concept]"]
    assert load(recipe_file(), saved).evaluate.concept_col == "concept"


RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_one(path):
    assert load(path).name


@pytest.mark.parametrize("name", ["compare", "compare-quick"])
def test_a_comparison_takes_over_the_tables_of_the_demo(name):
    """Its plan, download, tower and embeddings ask for what make demo made, so none of them is made again."""
    demo, compared = load(RECIPES / "openmoji.yaml"), load(RECIPES / f"{name}.yaml")
    sections = ("plan", "download", "tower", "embed")
    assert compared.meaning(sections) == demo.meaning(sections)


def test_a_recipe_that_comes_with_corgi_is_found_by_its_name_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("smoke") == load(RECIPES / "smoke.yaml")
    Path("corgi").mkdir()  # as in a checkout, whose package has the name of a recipe
    assert load("corgi") == load(RECIPES / "corgi.yaml")
    (tmp_path / "smoke").write_text("name: mine")
    assert load("smoke").name == "mine"


def test_a_runs_folder_gives_its_recipe_where_it_is_now(tmp_path, monkeypatch):
    recorded = load(RECIPES / "smoke.yaml", ["plan.input=list.parquet"]).model_dump(mode="json")
    folder = tmp_path / "moved" / "copy"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"recipe": recorded}))
    for place, named in ((tmp_path, "moved/copy"), (folder, ".")):
        monkeypatch.chdir(place)
        recipe = load(named, ["prior.width=96"])
        assert (recipe.name, Path(recipe.root).absolute().resolve()) == ("copy", tmp_path / "moved")
        assert recipe.prior.width == 96
        assert recipe.meaning(["plan", "download", "tower"]) == load("smoke").meaning(
            ["plan", "download", "tower"]
        )


def test_a_recorded_recipe_of_an_earlier_version_keeps_its_meaning(tmp_path):
    """A setting that it does not name was not there yet: it means what was done then."""
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"name": "a", "decoder": {"width": 640}}}))
    assert load(tmp_path).decoder == DecoderSettings.recorded({"width": 640})


@pytest.mark.parametrize("text", ["{", "[]", '{"stages": {}}', '{"recipe": 3}'])
def test_a_run_without_a_recipe_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert "records no recipe" in line_of(tmp_path)
