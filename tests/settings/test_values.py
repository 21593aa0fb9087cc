"""A value is read by the type of its setting: text as it stands, the rest as YAML 1.2; JSON is the oracle for the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe, load
from corgi.settings.section import Section
from corgi.settings.values import core, read_file, read_override, section_of, typed

AWKWARD = (
    *("no", "yes", "on", "off", "true", "~", "0123", "0o17", "1e3", "1_000", "12:30:45", "2024-01-01", ".5", "1.", "="),
    *("<<", "run #2/r", "a=b", "a: b", "a:", "- a", "${seed}", "${oc.env:HOME}", "[a", "{a", "*a", "&a", "!a", "%a", "@a"),
    *("`a", "|", "s3://bucket/a,b?c=d#e", "C:\\new\\table", "'a' and 'b'", "say \"hi\"", "\"a\" # b", "'", "\"", " a ", "a\tb", "", "München"),
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text())
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))


def is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def base(folder: Path, more: str = "") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"name: tiny\nembed: {{towers: [{{name: rn, model: RN50, pretrained: random}}]}}\n{more}")
    return path


@given(TEXTS.filter(lambda text: not is_quoted(text)))
def test_law_text_stands_as_it_is_on_the_command_line(text):
    assert read_override("root", text, Recipe) == text
    assert read_override("plan.caption_col", text, Recipe) == (None if text == "null" else text)
    if not text.lstrip().startswith("["):
        assert read_override("plan.input", text, Recipe) == text


@given(TEXTS)
def test_law_quotation_marks_around_the_whole_are_taken_off(text):
    doubled = yaml.dump(text, default_style='"', width=10**9).removesuffix("\n")
    assert read_override("root", doubled, Recipe) == text
    if text.isprintable():
        assert read_override("plan.caption_col", "'{}'".format(text.replace("'", "''")), Recipe) == text


@pytest.mark.parametrize("text", ["'a' and 'b'", '"a"b"', '"a" ', "'", '"', '"\\q"', "'a': 'b'"])
def test_other_quotation_marks_are_part_of_the_text(text):
    assert read_override("root", text, Recipe) == text


@given(NUMBERS)
def test_law_numbers_are_those_of_json(number):
    text = json.dumps(number)
    assert core(text) == json.loads(text)
    assert type(core(text)) is type(json.loads(text))
    assert read_override("shift.scale", text, Recipe) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0123", 123), ("+5", 5), ("0o17", 15), ("0x1F", 31), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("5 # five", 5)),
        *(("-.inf", float("-inf")), ("~", None), ("null", None), ("", None)),
        *((text, text) for text in ("1_000", "12:30", "2024-01-01", "0b11", "deep", "4#5", "٣")),
    ],
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(text, value):
    assert read_override("prior.depth", text, Recipe) == value


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_booleans_are_those_of_yaml_1_2(text):
    assert read_override("download.trust_list", text, Recipe) is (text.lower() == "true")


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "y", "n", "1", "0", "t", "1.0"])
def test_what_is_neither_true_nor_false_is_one_line(tmp_path, text):
    said = f"download.trust_list='{text}' is neither true nor false; nothing was started; "
    for path, overrides in (
        (base(tmp_path), [f"download.trust_list={text}"]),
        (base(tmp_path, f"download: {{trust_list: {text}}}\n"), []),
    ):
        with pytest.raises(SettingsError, match=said):
            load(path, overrides)


@given(st.lists(TEXTS.filter(str.isprintable)))
def test_law_an_element_of_a_list_of_text_is_text(texts):
    assert read_override("plan.input", json.dumps(texts, ensure_ascii=False), Recipe) == texts


@given(
    st.lists(
        st.sampled_from(
            ["no", "0123", "1e3", "2024-01-01", "null", "~", "true", "a=b", "http://a/b#c", "x:1", "${a}"]
        )
    )
)
def test_law_an_element_without_quotes_is_text_as_well(texts):
    written = f"[{', '.join(texts)}]"
    if "${a}" not in texts:  # braces are marks inside a list
        assert read_override("plan.save_additional_columns", written, Recipe) == texts
    assert read_override("evaluate.steps", "[1, 2e1]", Recipe) == [1, 20.0]


def test_a_glob_that_begins_with_a_bracket_asks_for_quotation_marks(tmp_path):
    with pytest.raises(SettingsError, match="put quotation marks around") as found:
        load(base(tmp_path), ["plan.input=[ab]*.csv"])
    assert "\n" not in str(found.value)
    assert load(base(tmp_path), ["plan.input='[ab]*.csv'"]).plan.input == ("[ab]*.csv",)


def test_the_examples_of_the_fault(tmp_path):
    given_ = load(
        base(tmp_path),
        ["root=run #2/r", "download.resize_mode=no", "name=0123", "plan.credit=${seed} = 5 #1", "plan.group_col=no"],
    )  # fmt: skip
    assert (given_.root, given_.download.resize_mode, given_.name) == ("run #2/r", "no", "0123")
    assert (given_.plan.credit, given_.plan.group_col) == ("${seed} = 5 #1", "no")


def test_a_recipe_s_own_values_are_read_by_type_too(tmp_path):
    written = (
        "seed: 0123\nplan: {url_col: no, group_col: 2024-01-01, uid_col: ~, caption_col: null, input: [0123, 1e3, yes]}\n"
        "download: {resize_mode: no, trust_list: TRUE, max_bytes: 1e6}\nprior: {training: {lr: 1e-3}}\nroot: 12:30\n"
    )
    read = load(base(tmp_path, written))
    assert (read.seed, read.root, read.plan.url_col, read.plan.group_col) == (
        123,
        "12:30",
        "no",
        "2024-01-01",
    )
    assert (read.plan.uid_col, read.plan.caption_col, read.plan.input) == (None, None, ("0123", "1e3", "yes"))
    assert (read.download.resize_mode, read.download.trust_list, read.prior.training.lr) == ("no", True, 1e-3)


@pytest.mark.parametrize("written", ["root:\n", "scratch:\n"])
def test_a_key_without_a_value_is_no_text(tmp_path, written):
    with pytest.raises(SettingsError, match="=None: Input should be a valid string"):
        load(base(tmp_path, written))


@given(st.dictionaries(st.sampled_from(["url_col", "group_col", "credit", "uid_col"]), TEXTS))
def test_law_a_section_on_the_command_line_is_its_settings_one_by_one(values):
    written = yaml.dump(values, default_style='"', width=10**9, allow_unicode=False)
    assert read_override("plan", written, Recipe) == values


def test_sections_inside_lists_and_sections_are_read_by_type(tmp_path):
    towers = "embed.towers=[{name: 0123, model: no, pretrained: 1e3, config: null}]"
    tower = load(
        base(tmp_path), [towers, "tower={dropout: 1e-1, training: {betas: [0.5, 9e-1], upload: no}}"]
    )
    ref = tower.embed.towers[0]
    assert (ref.name, ref.model, ref.pretrained, ref.config) == ("0123", "no", "1e3", None)
    assert tower.tower is not None
    assert (tower.tower.dropout, tower.tower.training.betas, tower.tower.training.upload) == (
        0.1,
        (0.5, 0.9),
        "no",
    )
    assert load(base(tmp_path, "tower: {}\n"), ["tower=null"]).tower is None


def test_later_values_lie_over_earlier_ones_and_leave_their_neighbours(tmp_path):
    path = base(tmp_path, "shift: {num_clusters: 3, scale: 2}\n")
    read = load(path, ["shift.num_clusters=4", "shift={seed: 5}", "shift.num_clusters=6", "plan.input=a=b=c"])
    assert (read.shift.num_clusters, read.shift.scale, read.shift.seed) == (6, 2.0, 5)
    assert read.plan.input == ("a=b=c",)


def test_merge_keys_and_anchors_of_a_file_are_known(tmp_path):
    written = "prior: {training: &t {num_steps: 7, lr: 1e-3}}\ndecoder: {training: {<<: *t, num_steps: 9}}\n"
    read = load(base(tmp_path, written))
    assert (read.decoder.training.num_steps, read.decoder.training.lr) == (9, 1e-3)


def settings(kind: Any = Recipe, path: str = "") -> list[tuple[str, Any]]:
    """Return every setting that is no section with its default."""
    found: list[tuple[str, Any]] = []
    for name, field in kind.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            found += settings(inner, f"{path}{name}.")
        elif not field.is_required():
            found.append((f"{path}{name}", field.get_default()))
    return found


@pytest.mark.parametrize(("path", "value"), settings())
def test_every_setting_reads_its_own_default_back(tmp_path, path, value):
    """As JSON, which is YAML, and, where it is text, as it stands."""
    plain = json.loads(json.dumps(value, default=lambda part: part.model_dump(mode="json")))
    written = value if isinstance(value, str) else json.dumps(plain)
    assert read_override(path, written, Recipe) == plain
    assert read_override(path, json.dumps(plain), Recipe) == plain
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(plain))
    assert typed("", read_file(file), dict(kinds())[path]) == plain


def kinds(kind: type[Section] = Recipe, path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, field in kind.model_fields.items():
        inner = section_of(field.annotation)
        found += kinds(inner, f"{path}{name}.") if inner else [(f"{path}{name}", field.annotation)]
    return found
