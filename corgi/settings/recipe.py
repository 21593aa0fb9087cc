"""A whole recipe: one section per stage, read from YAML and `key.path=value`; an invalid one is an error of one line."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# YAML and pydantic give values of any type

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator, model_validator
from yaml import YAMLError

from corgi.names import TRAINED_SPACES, UPSAMPLERS
from corgi.settings.clip import TOWER_PREFIX, CurateSettings, EmbedSettings, ShiftSettings, TowerSettings
from corgi.settings.cluster import ClusterSettings
from corgi.settings.compare import CompareSettings, ScoreSettings
from corgi.settings.data import DownloadSettings, PackSettings, PlanSettings
from corgi.settings.decoder import DecoderSettings, UpsamplerSettings, check_chain
from corgi.settings.errors import SettingsError
from corgi.settings.models import AutoencoderSettings, EvaluateSettings, PriorSettings
from corgi.settings.section import Section, added, neutral
from corgi.settings.training import TrackingSettings
from corgi.settings.values import read_file, read_override, section_of, typed

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"
"""Recipes that come with Corgi, in a checkout and in an installed wheel."""


class Recipe(Section):
    """Everything a run is made from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run: its folder under root."""
    root: str = neutral("runs")
    """Where tables, models and reports go: a folder, or a URL such as s3://bucket/runs, gs://... or az://... of a store with
    conditional put; credentials and endpoint come from the environment."""
    scratch: str = neutral("")
    """Folder on a disk that every node can reach, for what is not committed: checkpoints, spilled rows, copies; empty: root, or
    `runs` where root is an object store."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of every stage that does not set its own."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = neutral(())
    """Seeds with which `corgi seeds` trains prior and decoder, one after the other, on shared tables, towers and autoencoder."""
    cluster: ClusterSettings = ClusterSettings()
    tracking: TrackingSettings = TrackingSettings()
    plan: PlanSettings = PlanSettings()
    download: DownloadSettings = DownloadSettings()
    tower: TowerSettings | None = None
    embed: EmbedSettings = EmbedSettings()
    curate: CurateSettings = CurateSettings()
    pack: PackSettings = PackSettings()
    shift: ShiftSettings = ShiftSettings()
    prior: PriorSettings = PriorSettings()
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    upsampler: UpsamplerSettings | None = added(None, since="0.2.0")
    second_upsampler: UpsamplerSettings | None = added(None, since="0.2.0")
    evaluate: EvaluateSettings = EvaluateSettings()
    compare: CompareSettings = CompareSettings()
    score: ScoreSettings = ScoreSettings()

    @model_validator(mode="before")
    @classmethod
    def _hand_the_seed_down(cls, values: object) -> object:
        if not isinstance(values, dict) or "seed" not in values:
            return values
        if isinstance(values["seed"], str) and not values["seed"].strip().isdecimal():
            return values
        seeded = dict(values)
        for name, field in cls.model_fields.items():
            kind = section_of(field.annotation)
            section = seeded.get(name, {} if field.default is not None else None)
            if kind is not None and "seed" in kind.model_fields and isinstance(section, dict):
                seeded[name] = {"seed": values["seed"], **section}
        return seeded

    @model_validator(mode="before")
    @classmethod
    def _embed_input_is_what_is_planned(cls, values: object) -> object:
        """Use embed.input as plan.input, so that its rows are planned, split and counted like those of any other input."""
        if not isinstance(values, dict):
            return values
        embed = values.get("embed")
        given = embed.get("input") if isinstance(embed, dict) else None
        planned = values.get("plan") or {} if given else None
        if not isinstance(planned, dict):
            return values
        return {**values, "plan": {**planned, "input": given}}

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice, and would be trained once")
        return seeds

    @model_validator(mode="after")
    def _names_are_known(self) -> "Recipe":
        towers = {ref.name for ref in self.embed.towers} or {"own"}
        asked = [ref.tower for ref in self.embed.heads]
        asked += [
            ref.model.removeprefix(TOWER_PREFIX)
            for ref in self.embed.tokens
            if ref.model.startswith(TOWER_PREFIX)
        ]
        asked += [name for name in (self.autoencoder.conv.perceptual_tower,) if name is not None]
        unknown = sorted(set(asked) - towers)
        if unknown:
            raise ValueError(
                f"embed.heads, embed.tokens and autoencoder.conv.perceptual_tower name tower {unknown[0]!r}; the towers are {', '.join(sorted(towers))}"
            )
        return self

    @model_validator(mode="after")
    def _concepts_are_saved(self) -> "Recipe":
        column = self.evaluate.concept_col
        if column is not None and column not in self.plan.save_additional_columns:
            raise ValueError(
                f"evaluate.concept_col={column} must be one of plan.save_additional_columns, which keep a column of the list"
            )
        return self

    @model_validator(mode="after")
    def _words_are_encoded(self) -> "Recipe":
        names = [ref.name for ref in self.embed.tokens]
        for section, reader in (("prior", self.prior), ("decoder", self.decoder)):
            wanted = reader.text_encoder
            is_named = wanted in names if wanted is not None else len(names) == 1
            if reader.num_text_tokens and names and not is_named:
                raise ValueError(
                    f"{section}.num_text_tokens={reader.num_text_tokens} reads word encodings, and {section}.text_encoder must name one of embed.tokens: {', '.join(names)}"
                )
        return self

    @model_validator(mode="after")
    def _networks_have_sides(self) -> "Recipe":
        if self.decoder.network != "mlp" and self.autoencoder.kind == "linear":
            raise ValueError(
                f"decoder.network={self.decoder.network} reads latents with sides, and those of autoencoder.kind=linear are flat: "
                "take another kind, or network mlp"
            )
        return self

    @model_validator(mode="after")
    def _cascade_is_a_chain(self) -> "Recipe":
        check_chain(self.upsamplers, self.autoencoder.image_size, self.decoder)
        return self

    @property
    def upsamplers(self) -> dict[str, UpsamplerSettings]:
        """Return the steps of the cascade in order, by the names of their sections and stages."""
        steps = zip(UPSAMPLERS, (self.upsampler, self.second_upsampler), strict=True)
        return {name: settings for name, settings in steps if settings is not None}

    @model_validator(mode="after")
    def _learned_shift_is_diagonal(self) -> "Recipe":
        if self.prior.learned_shift and self.shift.covariance != "diagonal":
            raise ValueError(
                f"prior.learned_shift learns a diagonal Sigma: it starts from shift.covariance=diagonal, not {self.shift.covariance}"
            )
        return self

    @model_validator(mode="after")
    def _steps_exist(self) -> "Recipe":
        if max(self.evaluate.steps) > self.prior.num_timesteps:
            raise ValueError(
                f"evaluate.steps={self.evaluate.steps} must be at most prior.num_timesteps={self.prior.num_timesteps}"
            )
        return self

    def require(self, stages: Collection[str]) -> None:
        """Check that no setting is missing that one of these stages needs; the settings of other stages may stay empty.

        Raises:
            SettingsError: a setting is missing; the line names the stage and the setting.

        """
        for stage, missing in self._missing():
            if stage in stages:
                raise SettingsError(
                    f"{stage} cannot run: {missing}; nothing was started; set it, or run only stages that do not need it (--until, --only)"
                )

    def _missing(self) -> Iterator[tuple[str, str]]:
        """Yield stages and what is missing in their settings."""
        if self.tower is None and not self.embed.towers and not self.embed.input:
            yield (
                "embed",
                "embed.towers is empty and no tower section trains one: name at least one CLIP model",
            )
        if self.tower is None and any(ref.pretrained == "trained" for ref in self.embed.towers):
            yield "embed", "embed.towers asks for the trained tower and no tower section trains one"
        conv = self.autoencoder.conv
        has_tower = self.tower is not None or bool(self.embed.towers)
        if self.autoencoder.kind in TRAINED_SPACES and conv.perceptual_weight and not has_tower:
            yield (
                "autoencoder",
                f"autoencoder.conv.perceptual_weight={conv.perceptual_weight:g} compares features of a CLIP tower, and neither embed.towers "
                "nor a tower section has one: name one, or set the weight to 0",
            )
        if self.prior.num_text_tokens and not self.embed.tokens:
            yield (
                "prior",
                f"prior.num_text_tokens={self.prior.num_text_tokens} reads word encodings and embed.tokens is empty",
            )

    @field_validator("name")
    @classmethod
    def _not_the_store(cls, name: str) -> str:
        if name == "store":
            raise ValueError("the folder store holds the tables of every run: choose another name")
        return name

    @field_validator("root")
    @classmethod
    def _of_a_known_kind(cls, root: str) -> str:
        scheme, found, _ = root.partition("://")
        if found and scheme not in ("s3", "gs", "az"):
            raise ValueError("root is a folder or an s3://, gs:// or az:// URL")
        return root

    @field_validator("scratch")
    @classmethod
    def _on_a_disk(cls, scratch: str) -> str:
        if "://" in scratch:
            raise ValueError("scratch is a folder on a disk every node can reach")
        return scratch


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with `key.path=value` overrides merged in before validation.

    `path` is a YAML file, the name of a recipe that comes with Corgi such as `laion-b32`, or the folder of a run on a
    disk, whose recorded recipe is used.

    Raises:
        SettingsError: the file cannot be read, or a key or value is not allowed; the line names its path.

    """
    is_run = (Path(path) / "run.json").is_file()
    values = _recorded_values(Path(path)) if is_run else _values_of(_located(Path(path)))
    for override in _checked(overrides):
        name, _, text = override.partition("=")
        first, *rest = name.split(".")
        value = read_override(name, text, Recipe)
        for part in reversed(rest):
            value = {part: value}
        values = _merged(values, {first: value})
    try:
        return Recipe.recorded(values) if is_run else Recipe.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _located(path: Path) -> Path:
    """Return the file of a recipe; a name that is not a file may name a recipe that comes with Corgi, even if a folder has that name."""
    packaged = RECIPES / f"{path}.yaml"
    return packaged if len(path.parts) == 1 and not path.is_file() and packaged.is_file() else path


def _recorded_values(folder: Path) -> dict[str, object]:
    """Return the recipe that a run's run.json records, with the name and root of the folder where the run is now.

    Raises:
        SettingsError: run.json is damaged or records no recipe.

    """
    try:
        values = json.loads((folder / "run.json").read_bytes())["recipe"]
        place = folder.absolute()
        return {**values, "name": place.name, "root": os.path.relpath(place.parent)}
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{folder / 'run.json'} records no recipe; nothing was started; name the recipe's YAML file"
        ) from None


def _values_of(path: Path) -> dict[str, object]:
    try:
        values = typed("", read_file(path), Recipe)
    except FileNotFoundError:
        raise SettingsError(
            f"recipe {path} does not exist; nothing was started; name a YAML file such as those in pipelines/recipes, or a run's folder"
        ) from None
    except (YAMLError, OSError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"recipe {path} cannot be read: {_one_line(error)}; nothing was started; correct the file"
        ) from error
    if values is not None and not isinstance(values, dict):
        raise SettingsError(
            f"recipe {path} holds no settings; nothing was started; name a file of `key: value` lines"
        )
    return values or {}


def _merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Return the settings `below` overridden by those `above`: sections are merged, any other value is replaced."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _checked(overrides: Sequence[str]) -> Sequence[str]:
    for override in overrides:
        if "=" not in override:
            raise SettingsError(
                f"{override!r} is not key.path=value; nothing was started; write for example prior.depth=4"
            )
    return overrides


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"]) or "recipe"
        message = _one_line(item["msg"].removeprefix("Value error, "))
        if item["type"] == "extra_forbidden":
            problems.append(f"{path}: no such setting, there are {', '.join(_names_beside(item['loc']))}")
        elif item["type"] == "missing" or isinstance(item["input"], dict | Section):
            problems.append(f"{path}: {message}")
        else:
            problems.append(f"{path}={item['input']!r}: {message}")
    return f"{'; '.join(problems)}; nothing was started; correct the recipe or the command line"


def _names_beside(path: tuple[int | str, ...]) -> list[str]:
    """Return the settings of the section that a path belongs to."""
    section: type[Section] = Recipe
    for part in path[:-1]:
        if isinstance(part, str):
            section = section_of(section.model_fields[part].annotation) or section
    return list(section.model_fields)
