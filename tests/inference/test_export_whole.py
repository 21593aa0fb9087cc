"""A whole run exported: it paints where corgi cannot be imported, and paints what corgi paints."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import corgi
from corgi.diffusion.shifted import ShiftTable
from corgi.inference.decoder_model import DecoderModel
from corgi.inference.export_prior import bundle
from corgi.inference.export_whole import SHIPPED, export_whole
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import InputError
from corgi.training.decoder_network import network_of, sizes_of
from tests.support.painting_run import painting_run
from tests.support.stable_unet import stable_config, stable_unet
from tests.support.strangers import Strangers

STRANGER = """
import json, sys
import numpy as np, torch
from diffusers import DiffusionPipeline
text, facts = torch.tensor(json.load(open(sys.argv[1]))), []
for folder in sys.argv[2:]:
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    painted = pipeline(text, seeds=[5, 6])
    np.save(folder + "/out.npy", np.stack([np.asarray(one) for one in painted.images]))
    facts.append(pipeline.decoder.config.facts)
print(json.dumps({"corgi": [m for m in sys.modules if m.startswith("corgi.")], "facts": facts}))
"""
DECODERS: list[dict[str, Any]] = [
    {"sampler": "ddim", "guidance_interval": (0.1, 0.9), "weak": {}},
    {"sampler": "dpm++", "network": "dit", "dit": {"heads": 2, "patch": 4}},
    {"network": "unet", "unet": {"widths": (16, 32), "heads": 2, "tokens": 2}},
]


STEPS = [0, 2, 1]
"""Steps of the cascade behind each decoder."""


@pytest.mark.slow
def test_law_each_network_paints_without_corgi_what_corgi_paints(
    strangers: Strangers, tmp_path: Path
) -> None:
    runs = [
        painting_run(tmp_path / str(n), decoder=decoder, num_upsamplers=steps)
        for n, (decoder, steps) in enumerate(zip(DECODERS, STEPS, strict=True))
    ]
    folders = [export_whole(run.folder, tmp_path / str(n) / "whole") for n, run in enumerate(runs)]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    generators = [corgi.load(run.folder) for run in runs]
    captions = ["a fox", "red heart"]
    (tmp_path / "text.json").write_text(json.dumps(generators[0].text_embedding(captions).tolist()))
    said = json.loads(strangers.run(STRANGER, tmp_path, tmp_path / "text.json", *folders).splitlines()[-1])
    assert said["corgi"] == []
    assert [facts["models"] for facts in said["facts"]] == [generator.models for generator in generators]
    for generator, folder in zip(generators, folders, strict=True):
        expected = np.stack([np.asarray(one) for one in generator.generate_each(captions, [5, 6])])
        found = np.load(folder / "out.npy")
        assert found.std() > 5
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_shipped_files_are_whole_and_know_no_corgi() -> None:
    for _, module in SHIPPED.values():
        source = bundle(module)
        compile(source, module, "exec")
        assert "import corgi" not in source
        assert "from corgi" not in source


def test_the_card_says_what_it_was_made_from_and_what_was_measured(tmp_path: Path) -> None:
    run = painting_run(tmp_path)
    run.publish("metrics.json", b'{"retrieval": 0.5}')
    card = (export_whole(run.folder, tmp_path / "whole") / "README.md").read_text()
    for word in ('"retrieval": 0.5', "tiny-transformer", "16 x 16 px", corgi.load(run.folder).models):
        assert word in card


@pytest.mark.parametrize("changes", [{"pseudo_text_xi": 1.0}])
def test_what_no_folder_can_hold_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = painting_run(tmp_path, decoder=changes)
    with pytest.raises(InputError, match="pseudo text"):
        export_whole(run.folder, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="is not empty"):
        export_whole(painting_run(tmp_path / "other").folder, tmp_path / "taken")


def test_every_weight_comes_back(tmp_path: Path) -> None:
    from corgi.inference.autoencoder_model import AutoencoderModel
    from corgi.inference.decoder_model import DecoderModel

    run = painting_run(tmp_path)
    folder = export_whole(run.folder, tmp_path / "whole")
    generator = corgi.load(run.folder)
    decoder, autoencoder = (
        kind.from_pretrained(folder / name)
        for kind, name in ((DecoderModel, "decoder"), (AutoencoderModel, "autoencoder"))
    )
    network: Any = generator.decoder.network
    for loaded, own in ((decoder, network), (autoencoder, generator.decoder.autoencoder)):
        inner: Any = loaded.network if isinstance(loaded, DecoderModel) else getattr(loaded, "autoencoder")  # noqa: B009
        assert inner.state_dict().keys() == own.state_dict().keys()
        assert all(torch.equal(value, own.state_dict()[name]) for name, value in inner.state_dict().items())


@pytest.mark.slow
@torch.no_grad()
def test_a_unet_that_was_pretrained_is_rebuilt_from_the_components_config() -> None:
    shape, config = (3, 4, 4), stable_config(stable_unet())
    settings = DecoderSettings(network="unet", init_from="a folder")
    network = network_of(settings, shape, ShiftTable.ddpm(5), config).eval()
    sizes = json.loads(json.dumps(asdict(sizes_of(settings, shape, config))))
    made = DecoderModel("unet", sizes, 5, {}).eval()
    made.network.load_state_dict(network.state_dict())
    given = torch.randn(2, 48), torch.tensor([1, 9]), torch.randn(2, 5), torch.tensor([True, False])
    assert torch.equal(made(*given), network(*given))
