"""Towers: one path for every source of weights, results that no batch changes, lines instead of tracebacks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from safetensors.torch import save_file

from corgi.clip import backbones
from corgi.clip.features import frozen_model
from corgi.clip.towers import Tower, crop_name, load_tower, split_transform
from corgi.clip.train import checkpoint
from corgi.settings.clip import TowerRef, TowerSettings
from corgi.settings.errors import InputError
from tests.support.drawn import picture

CAPTIONS = [
    "a red square",
    "dog",
    "a woman with long white hair who is reading a newspaper in the park",
    "dog",
]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tower, TowerRef]:
    """Return a packaged tower as built, and a reference to it saved as config and checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    settings = TowerSettings(image_size=64, embed_dim=32)
    model, preprocess, tokenizer = frozen_model(settings)
    (folder / "config.json").write_text(json.dumps(backbones.portable_config(settings)))
    (folder / "checkpoint.safetensors").write_bytes(checkpoint(model))
    ref = TowerRef(
        name="own",
        model="own",
        pretrained=str(folder / "checkpoint.safetensors"),
        config=str(folder / "config.json"),
    )
    return Tower("own", model, preprocess, tokenizer), ref


def test_a_saved_tower_comes_back_with_the_same_vectors(own: tuple[Tower, TowerRef]) -> None:
    built, ref = own
    loaded = load_tower(ref)
    pictures = [picture(number) for number in range(4)]
    assert (loaded.dim, loaded.image_size) == (32, 64)
    for a, b in (
        (built.images(pictures), loaded.images(pictures)),
        (built.texts(CAPTIONS), loaded.texts(CAPTIONS)),
    ):
        torch.testing.assert_close(a[0], b[0], atol=0, rtol=0)
        torch.testing.assert_close(a[1], b[1], atol=0, rtol=0)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tower_saved_on_a_gpu_loads_where_there_is_none(
    own: tuple[Tower, TowerRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """torch.save notes each tensor's device, and torch.load asks for it unless it is told otherwise."""
    built, ref = own
    path = tmp_path / "gpu.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(built.model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(path, weights_only=True)
    loaded = load_tower(ref.model_copy(update={"pretrained": str(path)}))
    torch.testing.assert_close(loaded.texts(CAPTIONS)[0], built.texts(CAPTIONS)[0], atol=0, rtol=0)


def test_the_committed_config_holds_no_path_of_this_machine(own: tuple[Tower, TowerRef]) -> None:
    _, ref = own
    assert ref.config is not None
    assert str(Path(backbones.__file__).anchor + "usr") not in Path(ref.config).read_text()
    folder = json.loads(Path(ref.config).read_text())["text_cfg"]["hf_model_name"]
    assert folder.startswith("package:")
    assert backbones.package_path(folder).is_dir()


@pytest.mark.law
def test_captions_do_not_depend_on_their_batch_and_padding_is_cut(own: tuple[Tower, TowerRef]) -> None:
    tower, _ = own
    together = tower.texts(CAPTIONS)[0]
    alone = torch.cat([tower.texts([caption])[0] for caption in CAPTIONS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert tower.tokens(["dog"]).shape[1] < tower.tokens(CAPTIONS).shape[1] < 32
    full = tower.tokenizer(CAPTIONS)
    assert full.shape[1] == 32
    with torch.no_grad():
        uncut = tower.model.encode_text(full, normalize=True)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(together, uncut, atol=1e-5, rtol=0)


@pytest.mark.law
def test_pictures_do_not_depend_on_their_batch(own: tuple[Tower, TowerRef]) -> None:
    tower, _ = own
    pictures = [picture(number) for number in range(5)]
    alone = torch.cat([tower.images([one])[0] for one in pictures])
    torch.testing.assert_close(tower.images(pictures)[0], alone, atol=1e-5, rtol=0)
    assert tower.images(pictures)[0].norm(dim=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.law
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(80, 80), (300, 120), (37, 250)])
def test_bytes_for_the_device_are_open_clips_floats(resize_mode, interpolation, size) -> None:
    """Every resize path of open_clip: what is scaled on the device is what its transform gives, bit for bit."""
    transform: Any = image_transform(64, is_train=False, resize_mode=resize_mode, interpolation=interpolation)
    crop, mean, std = split_transform(transform)
    shown = picture(3).resize(size)
    pixels = crop(shown)
    assert pixels.dtype == torch.uint8
    scaled = pixels.float().div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])
    torch.testing.assert_close(scaled, transform(shown), atol=0, rtol=0)


def test_crops_have_one_name_where_they_make_the_same_pixels() -> None:
    """Mean and standard deviation are the device's: they make no other crop."""

    def crop(side: int = 64, **kwargs: Any) -> str:
        transform: Any = image_transform(side, is_train=False, **kwargs)
        return crop_name(transform)

    assert crop() == crop() == crop(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    others = [crop(32), crop(resize_mode="squash"), crop(interpolation="bilinear")]
    assert len({crop(), *others}) == 4
    wholes: list[Any] = [lambda shown: shown, lambda shown: shown]
    assert crop_name(wholes[0]) != crop_name(wholes[1])


def test_a_transform_of_another_shape_is_kept_whole() -> None:
    def whole(shown: object) -> torch.Tensor:
        return torch.ones(3, 4, 4)

    crop, mean, std = split_transform(whole)
    assert crop(picture(1)).dtype == torch.float32
    assert mean.tolist() == [0, 0, 0]
    assert std.tolist() == [1, 1, 1]


def test_random_weights_are_the_same_each_time_and_a_checkpoint_path_replaces_them(tmp_path: Path) -> None:
    config = tmp_path / "tiny.json"
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config.write_text(
        json.dumps(
            {
                "embed_dim": 16,
                "vision_cfg": {
                    "image_size": 32,
                    "layers": 1,
                    "width": 32,
                    "head_width": 16,
                    "patch_size": 16,
                },
                "text_cfg": text,
            }
        )
    )
    random = TowerRef(name="tiny", model="tiny", pretrained="random", config=str(config))
    first, second = load_tower(random), load_tower(random)
    torch.testing.assert_close(first.texts(["dog"])[0], second.texts(["dog"])[0], atol=0, rtol=0)
    state = {name: torch.full_like(value, 0.01) for name, value in first.model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    vectors = [
        load_tower(random.model_copy(update={"pretrained": str(tmp_path / name)})).texts(["dog"])[0]
        for name in ("w.safetensors", "w.pt")
    ]
    torch.testing.assert_close(vectors[0], vectors[1], atol=0, rtol=0)
    assert not np.allclose(vectors[0], first.texts(["dog"])[0])


@pytest.mark.parametrize(
    ("model", "pretrained"),
    [("ViT-B-99", "random"), ("ViT-B-32", "no-such-tag"), ("ViT-B-32", "openai"), ("ViT-B-32", __file__)],
)
def test_what_cannot_be_loaded_is_one_line_with_the_way_out(
    model: str, pretrained: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_tower(TowerRef(name="x", model=model, pretrained=pretrained))
    line = str(caught.value)
    assert "\n" not in line
    for word in (model, pretrained, str(tmp_path), "local .safetensors"):
        assert word in line


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"embed_dim": 3}')
    with pytest.raises(InputError, match="vision_cfg"):
        load_tower(TowerRef(name="x", model="x", pretrained="random", config=str(path)))
