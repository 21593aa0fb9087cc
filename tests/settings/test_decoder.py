"""Settings of the decoder that fit together or are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corgi.settings.decoder import DecoderSettings, UNetSettings, UpsamplerSettings
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import load

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prediction": "eps"}, "divides by the signal"),
    ({"prediction": "eps", "zero_terminal_snr": False}, "divides by the signal"),
    ({"prediction": "eps", "schedule": "linear"}, "divides by the signal"),
    ({"schedule": "flow", "zero_terminal_snr": False}, "ends in pure noise"),
    ({"guidance_interval": (0.8, 0.2)}, "must ascend"),
    ({"noise_level_known": True}, "conditioning_noise above 0"),
    ({"regression": True}, "has none: set network to unet or dit"),
    ({"network": "unet", "regression": True, "pseudo_text_xi": 1.0}, "not on pseudo text"),
    ({"network": "dit", "width": 24, "dit": {"heads": 5}}, "multiple of 4 and of dit.heads 5"),
    ({"network": "dit", "width": 18, "dit": {"heads": 2}}, "multiple of 4 and of dit.heads 2"),
    ({"unet": {"attention": [2]}}, "attention names level 2; the levels are 0 to 1"),
    ({"unet": {"widths": [24], "heads": 5, "attention": []}}, "width 24 must be a multiple of heads 5"),
    ({"unet": {"widths": [12], "heads": 4, "attention": []}}, "multiple of 8"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DecoderSettings.model_validate(values)


def test_eps_is_for_a_schedule_that_leaves_signal() -> None:
    assert DecoderSettings(prediction="eps", schedule="linear", zero_terminal_snr=False).prediction == "eps"


def test_the_unet_of_the_demo_can_be_told() -> None:
    assert UNetSettings(widths=(96, 192), layers=1, attention=(1,), tokens=4).heads == 4


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"network": "mlp"}, "works on planes"),
    ({"side": 64}, "side 64 must be larger than low_side 64"),
    ({"crop": 512}, "crop 512 must be at most side 256"),
    ({"painted_low_noise": 0.5}, "must be at most low_noise 0.3"),
    ({"network": "dit", "width": 64}, "trained on whole pictures"),
    ({"unet": {"middle_attention": True}}, "trained on whole pictures"),
]


@pytest.mark.parametrize(("values", "words"), UNFIT, ids=str)
def test_an_upsampler_that_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        UpsamplerSettings.model_validate(values)


CHAINS: list[tuple[str, str]] = [
    ("second_upsampler: {low_side: 64}", "there is no such section"),
    ("upsampler: {low_side: 32}", "upsampler.low_side=32 must be autoencoder.image_size=64"),
    (
        "upsampler: {}\nsecond_upsampler: {side: 1024}",
        "second_upsampler.low_side=64 must be upsampler.side=256",
    ),
    ("decoder: {pseudo_text: trained}\nupsampler: {}", "not decoder.pseudo_text=trained"),
    (
        "decoder: {pseudo_text_xi: 3}\nupsampler: {}",
        "upsampler.pseudo_text_xi=0.0 must be decoder.pseudo_text_xi=3.0",
    ),
]


@pytest.mark.parametrize(("sections", "words"), CHAINS)
def test_a_cascade_whose_steps_do_not_meet_is_one_line(sections: str, words: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\nplan: {{input: x.parquet}}\n{sections}\n")
    with pytest.raises(SettingsError, match=re.escape(words)) as error:
        load(recipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", ["unet", "dit"])
def test_a_network_that_reads_sides_is_refused_on_flat_latents_before_anything_starts(network, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\nplan: {{input: x.parquet}}\ndecoder: {{network: {network}, width: 64}}\n")
    with pytest.raises(
        SettingsError, match=f"decoder.network={network} reads latents with sides.*are flat"
    ) as error:
        load(recipe)
    assert "\n" not in str(error.value)


def test_what_was_asked_before_these_settings_existed_keeps_its_meaning() -> None:
    """Naming each added setting's default changes no key."""
    marks = {name: field.json_schema_extra for name, field in DecoderSettings.model_fields.items()}
    added = [name for name, extra in marks.items() if isinstance(extra, dict) and "added" in extra]
    assert {"network", "unet", "prediction", "sampler"} <= set(added)
    assert not set(added) & set(DecoderSettings().meaning())
