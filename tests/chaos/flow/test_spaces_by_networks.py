"""Every latent space under every decoder network, through the whole flow: trained by Ray Train, evaluated, painted with."""

import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

import corgi
from corgi.names import LatentSpaceName, NetworkName
from corgi.tables.run import Run
from tests.chaos.training.test_demo import TIMEOUT_S, ended, fresh, start
from tests.latents.test_pretrained import folder_of
from tests.support.smoke_run import Smoke

SIDE = 32
SPACES, NETWORKS = get_args(LatentSpaceName), get_args(NetworkName)
FLAT = "linear"
TRAINING = {"num_steps": 20, "global_batch": 16, "precision": "fp32", "checkpoint_every_steps": 10}
AUTOENCODER: dict[str, Any] = {
    "image_size": SIDE,
    "latent_dim": 64,
    "conv": {"widths": [8, 16], "channels": 2, "perceptual_stages": 2},
    "quantiser": {"levels": [5, 4], "min_code_use": 0},
    "training": {**TRAINING, "num_workers": 2},
}
DECODER: dict[str, Any] = {
    "width": 32,
    "depth": 1,
    "unet": {"widths": [16, 32]},
    "dit": {"heads": 2, "patch": 4},
    "sample_steps": 4,
    "training": {**TRAINING, "num_workers": 2},
}


@pytest.fixture(scope="module")
def root(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with tables, tower, statistics and prior, but without autoencoder and decoder."""
    made = fresh(smoke, tmp_path_factory.mktemp("spaces") / "runs", "autoencoder", "decoder")
    folder_of(made / "vae", "AutoencoderTiny")
    return made


def told(root: Path, space: str, network: str) -> list[str]:
    autoencoder = {**AUTOENCODER, "kind": space, "pretrained": {"path": str(root / "vae")}}
    return [
        f"name={space}-{network}",
        f"autoencoder={json.dumps(autoencoder)}",
        f"decoder={json.dumps({**DECODER, 'network': network})}",
    ]


@pytest.mark.flow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("space", "network"), list(product(SPACES, NETWORKS)))
def test_every_network_learns_every_space_it_fits_and_paints(
    smoke: Smoke, root: Path, space: str, network: str
) -> None:
    process = start("full", smoke, root, *told(root, space, network))
    if space == FLAT and network != "mlp":
        assert process.wait(timeout=TIMEOUT_S) != 0
        line = Path(f"{root}.log").read_text().splitlines()[-1]
        assert (
            f"decoder.network={network} reads latents with sides, and those of autoencoder.kind={FLAT} are flat"
            in line
        )
        assert not (root / f"{space}-{network}").exists()
        return
    ended(process, root)
    run = Run.open(root / f"{space}-{network}")
    model, decoder = (run.shards(stage)[0] for stage in ("autoencoder", "decoder"))
    assert model.facts.get("kind", FLAT) == space
    assert decoder.facts["autoencoder"] == model.digest
    for manifest in run.stages().values():
        assert manifest.rows.rows_in == manifest.rows.kept + sum(manifest.rows.rejected.values())
    assert (run.folder / "report.html").exists()
    first, second = corgi.load(run.folder).generate("red heart", n=2)
    assert first.size == second.size == (SIDE, SIDE)
    assert first.tobytes() != second.tobytes()
