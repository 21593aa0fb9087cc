"""Settings of the models that fit together or are refused, whatever the order they are given in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from corgi.settings.decoder import DecoderSettings
from corgi.settings.models import AutoencoderSettings, PriorSettings


def is_accepted(kind: type[BaseModel], **values: Any) -> bool:
    try:
        kind(**values)
    except ValidationError:
        return False
    return True


@given(st.integers(32, 200), st.integers(1, 40), st.booleans())
def test_law_a_width_is_even_and_splits_over_its_heads(width: int, heads: int, rotary: bool) -> None:
    fits = width % 2 == 0 and width % heads == 0 and not (rotary and width // heads % 2)
    assert is_accepted(PriorSettings, width=width, heads=heads, rotary=rotary) == fits


@pytest.mark.parametrize("kind", [PriorSettings, DecoderSettings])
def test_no_more_steps_are_sampled_than_there_are(kind: Any) -> None:
    assert kind(num_timesteps=5, sample_steps=5).sample_steps == 5
    with pytest.raises(ValidationError, match="sample_steps 6 must be at most num_timesteps 5"):
        kind(num_timesteps=5, sample_steps=6)


@pytest.mark.parametrize("schedule", ["cosine_zero_snr", "linear_zero_snr"])
def test_what_divides_by_the_signal_is_refused_where_there_is_none(schedule: Any) -> None:
    with pytest.raises(ValidationError, match="prediction eps is undefined"):
        PriorSettings(schedule=schedule, prediction="eps")


@pytest.mark.parametrize("learned", [{"learned_shift": True}, {"cluster_choice": "learned"}])
def test_what_is_learned_beside_the_network_is_not_split(learned: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"needs training\.zero_stage=0"):
        PriorSettings.model_validate({**learned, "training": {"zero_stage": 1}})


def test_an_autoencoder_has_no_more_components_than_a_picture_has_values() -> None:
    assert AutoencoderSettings(image_size=16, latent_dim=768).latent_dim == 768
    with pytest.raises(ValidationError, match="must be at most the 768 values"):
        AutoencoderSettings(image_size=16, latent_dim=769)
