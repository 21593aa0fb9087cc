"""A decoder that starts from trained weights, in three ways: what learns, what is committed, resumed bit by bit, what is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.noise import Noise
from corgi.flow.context import Context
from corgi.flow.executor import in_process
from corgi.flow.inspect import lineage
from corgi.settings.decoder import DecoderSettings, FineTuneSettings
from corgi.settings.errors import InputError, SettingsError
from corgi.settings.recipe import Recipe
from corgi.settings.section import digest
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.run import Run
from corgi.training.alone import train_alone
from corgi.training.checkpoint import final_weights
from corgi.training.decoder import DecoderObjective
from corgi.training.decoder import run as decoder_stage
from corgi.training.decoder_network import load_decoder, network_of
from corgi.training.finetune import check_peft, merged
from corgi.training.init_from import (
    INIT_FACT,
    UNET_CONFIG,
    InitFolder,
    InitRun,
    decoder_init,
    fingerprint,
    place_of,
    prior_init,
)
from corgi.training.stages import Decoder
from corgi.training.training import Training
from tests.support.objectives import (
    DECODER,
    SIDE,
    decoder_arguments,
    pixel_run,
    prior_objective,
    prior_run,
)
from tests.support.stable_unet import stable_unet_folder
from tests.support.tables import DIM, Output, close_stage, commit_stage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

WAYS = ("projection", "lora", "all")
CASES = [
    ("projection", 2, "bf16"),
    ("lora", 1, "bf16"),
    ("lora", 0, "fp32"),
    ("all", 0, "fp32"),
]
"""Way, ZeRO stage and precision of each training: in bf16 the engine of stage 1 or 2 holds frozen weights in bf16."""
SHAPE = (3, SIDE, SIDE)
STEPS, FAULT_AT, BATCH = 4, 3, 4
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")


class FaultyObjective(DecoderObjective):
    """Raises once, at a step, where `marker` names a file that is not there yet."""

    def __init__(self, marker: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.marker = marker

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        due = int(noise.positions.min()) // BATCH == FAULT_AT and torch.is_grad_enabled()
        if due and self.marker and not Path(self.marker).exists():
            Path(self.marker).touch()
            folder = Path(self.marker).parent
            wait_until(lambda: any(folder.glob("checkpoints/*/COMMITTED.json")), "a checkpoint is committed")
            raise InterruptedError("a fault the test asked for")
        return super().loss(model, batch, noise)


def settings_of(way: str, init_from: str) -> DecoderSettings:
    asked = FineTuneSettings.model_validate({"weights": way, "rank": 2})
    start = {"network": "unet", "init_from": init_from, "finetune": asked}
    return DECODER.model_copy(update=start)


def training_of(
    root: Path, case: tuple[str, int, str], name: str, arguments: dict[str, Any] | None = None
) -> Training:
    way, stage, precision = case
    settings = TrainingSettings.model_validate(
        {
            "num_steps": STEPS, "global_batch": BATCH, "lr": 0.01, "ema_decay": 0.5, "precision": precision,
            "zero_stage": stage, "checkpoint_every_steps": 2,
        }
    )  # fmt: skip
    quiet, folder = TrackingSettings(mode="disabled"), root / f"{name}-{way}-{stage}"
    marker = str(folder / "fault") if name == "broken" else ""
    told = {**(arguments or {}), "marker": marker}
    return Training(folder.name, str(folder), FaultyObjective, told, settings, quiet, "tests", seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pixel_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_unet_folder(tmp_path_factory.mktemp("unet"))


@pytest.fixture(scope="module")
def trained(run: Run, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train each case once as a whole, and once stopped by a fault and started again."""
    root = tmp_path_factory.mktemp("trained")
    for case in CASES:
        given = decoder_arguments(run, settings_of(case[0], str(folder)))
        arguments = {**given, "init": {"folder": str(folder)}}
        broken = training_of(root, case, "broken", arguments)
        with pytest.raises(InterruptedError):
            train_alone([broken])
        train_alone([broken, training_of(root, case, "whole", arguments)])
    return root


def weights(root: Path, case: tuple[str, int, str], name: str = "whole") -> dict[str, Tensor]:
    return load_file(final_weights(training_of(root, case, name)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_stopped_training_ends_bit_by_bit_as_a_whole_one(trained: Path, case: tuple[str, int, str]) -> None:
    whole, broken = weights(trained, case), weights(trained, case, "broken")
    assert (training_of(trained, case, "broken").path / "fault").exists()
    assert whole.keys() == broken.keys()
    assert [name for name in whole if not torch.equal(whole[name], broken[name])] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_learns_is_what_was_asked_for(trained: Path, folder: Path, case: tuple[str, int, str]) -> None:
    """The maps of the embedding always; of the U-Net nothing, the attention's maps alone, or every tensor. The rest keeps its bits."""
    original = load_file(folder / "diffusion_pytorch_model.safetensors")
    final = merged(weights(trained, case))
    changed = {name for name, value in original.items() if not torch.equal(final[f"unet.{name}"], value)}
    attention = {name for name in original if name.removesuffix(".weight").endswith(ADAPTED)}
    expected = {"projection": set(), "lora": attention, "all": set(original)}[case[0]]
    assert changed == expected
    assert final["condition.vector.weight"].any()
    assert final["condition.tokens.weight"].any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_checkpoint_averages_what_learns_alone(trained: Path, case: tuple[str, int, str]) -> None:
    (path, *_) = training_of(trained, case, "whole").path.glob("checkpoints/*/ema.safetensors")
    names = load_file(path).keys()
    kinds = {name.split(".")[0] if ".lora_" not in name else "lora" for name in names}
    assert (
        kinds
        == {"projection": {"condition"}, "lora": {"condition", "lora"}, "all": {"condition", "unet"}}[case[0]]
    )


@pytest.mark.parametrize("case", CASES[:1] + CASES[2:], ids=str)
def test_what_is_committed_is_a_decoder_without_adapters(
    run: Run, trained: Path, folder: Path, case: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It paints what the trained network with its adapters paints, and needs neither folder nor peft."""
    settings, init = settings_of(case[0], str(folder)), InitFolder(folder)
    objective = DecoderObjective(**decoder_arguments(run, settings), init=place_of(init))
    with_adapters = objective.model().eval()
    with_adapters.load_state_dict(weights(trained, case))
    commit_decoder(run, merged(weights(trained, case)), settings, init)
    monkeypatch.setitem(sys.modules, "peft", None)
    loaded = load_decoder(run.store, run.shards("decoder")[0], run.shards("autoencoder")[0])
    latent, embedding = torch.randn(3, 3 * SIDE**2), torch.randn(3, DIM)
    t, kept = torch.tensor([1, 20, 50]), torch.tensor([False, False, True])
    with torch.no_grad():
        answers = [network(latent, t, embedding, kept) for network in (loaded.network, with_adapters)]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)
    assert loaded.sample(embedding, range(3), steps=2).shape == (3, SIDE, SIDE, 3)
    assert set(run.shards("decoder")[0].facts[INIT_FACT]["files"]) >= {"config.json"}


def commit_decoder(
    run: Run, state: dict[str, Tensor], settings: DecoderSettings, init: InitFolder | None = None
) -> None:
    """Commit weights as the stage does."""
    files = {"decoder": (".safetensors", save(state))}
    if init is not None:
        files[UNET_CONFIG] = (".json", json.dumps(init.config).encode())
    facts = {} if init is None else {INIT_FACT: init.facts()}
    recorded = {"decoder": settings.model_dump(mode="json")}
    output = Output(RowCounts(rows_in=1, kept=1), files=files, facts=facts, settings=recorded)
    commit_stage(run, "decoder", {"all": output}, ["autoencoder"])


def broken_folder(folder: Path, target: Path, change: Any) -> Path:
    """Copy a folder with its tensors changed."""
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    change(state)
    save_file(state, target / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return target


CHANGES: dict[str, Any] = {
    "1 tensors are missing, the first conv_in.bias": lambda state: state.pop("conv_in.bias"),
    "1 tensors are unexpected, the first other": lambda state: state.update(other=torch.zeros(2)),
    "the weights cannot be read.*conv_in.bias": lambda state: state.update({"conv_in.bias": torch.zeros(5)}),
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_missing_unknown_or_unfitting_tensor_is_one_line(
    run: Run, folder: Path, tmp_path: Path, words: str
) -> None:
    harmed = broken_folder(folder, tmp_path / "harmed", CHANGES[words])
    with pytest.raises(InputError, match=words) as caught:
        DecoderObjective(
            **decoder_arguments(run, settings_of("all", str(harmed))), init=place_of(InitFolder(harmed))
        )
    assert "\n" not in str(caught.value)


def recipe_of(run: Run, init_from: str) -> Recipe:
    values = {"decoder": {"init_from": init_from, "network": "unet"}, "autoencoder": {"kind": "pixels"}}
    return Recipe.model_validate({"name": "next", "root": str(run.store.root.parent), **values})


def test_the_decoder_of_another_run_is_found_by_folder_or_name_and_verified(
    tmp_path: Path,
) -> None:
    """Its weights, and the mean and scale of the embeddings it knows, are where the next training starts."""
    run = pixel_run(tmp_path / "runs")
    with pytest.raises(InputError, match="no complete stage decoder"):
        decoder_init(recipe_of(run, "tiny"))
    settings = DECODER.model_copy(update={"network": "unet"})
    torch.manual_seed(4)
    network = network_of(settings, SHAPE, ShiftTable.standardised(torch.randn(DIM), torch.rand(DIM) + 0.5))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    commit_decoder(run, state, settings)
    for named in ("tiny", "tiny/decoder", str(run.folder), f"{run.folder}/decoder"):
        found = decoder_init(recipe_of(run, named))
        assert isinstance(found, InitRun)
        assert found.made.digest == run.shards("decoder")[0].digest
        assert list((fingerprint(found) or {}).values()) == [found.made.digest]
    assert found.facts()["run"] == "tiny"
    objective = DecoderObjective(**decoder_arguments(run, settings), init=place_of(found))
    started = objective.model().state_dict()
    assert [name for name in state if not torch.equal(started[name], state[name])] == []
    torch.testing.assert_close(objective.table.mean, state["embedding_table.mean"])
    wider = settings.model_copy(update={"unet": settings.unet.model_copy(update={"widths": (32,)})})
    with pytest.raises(InputError, match=r"has the shape \(.*not \(") as caught:
        DecoderObjective(**decoder_arguments(run, wider), init=place_of(found)).model()
    assert "\n" not in str(caught.value)
    other = settings.model_copy(update={"network": "dit"})
    with pytest.raises(InputError, match=r"is missing, and \d+ more"):
        DecoderObjective(**decoder_arguments(run, other), init=place_of(found)).model()


def test_lineage_keeps_both_runs(tmp_path: Path) -> None:
    """What a stage's key holds from outside the store is named: the run, and the digest of its decoder."""
    run = pixel_run(tmp_path / "runs")
    state = {"embedding_table.mean": torch.zeros(1, DIM), "embedding_table.scale": torch.ones(1, DIM)}
    commit_decoder(run, state, DECODER)
    outside = fingerprint(decoder_init(recipe_of(run, "tiny")))
    assert outside is not None
    made = run.stages()["decoder"].model_copy(update={"outside": outside, "key": "f" * 32})
    run.record("decoder", run.store.close(made))
    ((what, sha256),) = outside.items()
    assert what.startswith("run tiny, ")
    assert f"  from outside: {what} {sha256}" in list(lineage(run, "decoder"))


def test_neither_folder_nor_run_is_one_line(run: Run) -> None:
    with pytest.raises(InputError, match="is not a folder with config") as caught:
        decoder_init(recipe_of(run, "nobody"))
    assert "\n" not in str(caught.value)
    assert decoder_init(recipe_of(run, "")) is None
    assert fingerprint(None) is None


def test_a_prior_starts_from_another_runs_and_keeps_its_own_shift(tmp_path: Path) -> None:
    """All of its weights; (mu, Sigma) are those of the run it is trained in. What does not fit is one line."""
    run = prior_run(tmp_path / "runs")
    objective = prior_objective(run)
    torch.manual_seed(5)
    state = {name: value + 0.25 for name, value in objective.model().state_dict().items()}
    files = {"prior_shifted": (".safetensors", save(state))}
    commit_stage(run, "prior", {"all": Output(RowCounts(rows_in=1, kept=1), files=files)}, ["shift"])
    found = prior_init(
        Recipe.model_validate(
            {"name": "next", "root": str(run.store.root.parent), "prior": {"init_from": "tiny"}}
        )
    )
    assert isinstance(found, InitRun)
    objective.init = place_of(found)
    started = objective.model().state_dict()
    own = {name for name in state if name.startswith("table.")}
    assert own
    assert {name for name, value in started.items() if torch.equal(value, state[name])} == set(state) - own
    other = prior_objective(run, width=64)
    other.init = place_of(found)
    with pytest.raises(InputError, match=r"prior\.init_from: .* has the shape"):
        other.model()
    missing = prior_objective(run, "dalle2")
    missing.init = place_of(found)
    with pytest.raises(InputError, match="has no prior_dalle2, it has prior_shifted"):
        missing.model()


def test_lora_without_peft_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_peft(settings_of("all", "x"))
    with pytest.raises(SettingsError, match="needs the package peft"):
        check_peft(settings_of("lora", "x"))


def test_a_part_of_nothing_is_refused() -> None:
    for asked in ({"network": "unet"}, {"init_from": "x", "network": "mlp"}):
        with pytest.raises(ValueError, match=r"finetune\.weights=lora trains some"):
            DecoderSettings.model_validate({**cast(dict[str, Any], asked), "finetune": {"weights": "lora"}})


def staged(run: Run, **changes: Any) -> ShardManifest:
    """Run the stage over a run's committed inputs, in this process, and record what it made."""
    decoder = {**DECODER.model_dump(mode="json", exclude={"training"}), "network": "unet", **changes}
    steps = {"num_steps": 2, "global_batch": 4, "precision": "fp32", "zero_stage": 0, "ema_decay": 0.5}
    recipe = Recipe.model_validate(
        {
            "name": run.name,
            "root": str(run.store.root.parent),
            "tracking": {"mode": "disabled"},
            "autoencoder": {"kind": "pixels"},
            "decoder": {**decoder, "training": steps},
        }
    )
    stage = Decoder.of(recipe)
    inputs, outside = {name: run.stages()[name] for name in stage.inputs}, stage.fingerprint(recipe)
    context = Context(stage, recipe, run.store, run, inputs, digest([decoder, outside]), outside=outside)
    with in_process():
        (task,) = decoder_stage(context)
    made = run.store.shard(task.stage, task.key)
    assert made is not None
    close_stage(run, "decoder", [made], list(inputs))
    return made


def test_the_stage_trains_from_a_folder_and_another_one_from_that_run(tmp_path: Path) -> None:
    """The second needs neither folder nor U-Net of diffusers by name: the first run's decoder says what it is."""
    first, folder = pixel_run(tmp_path / "runs"), stable_unet_folder(tmp_path / "unet")
    made = staged(first, init_from=str(folder), finetune={"weights": "lora", "rank": 2})
    assert made.facts[INIT_FACT]["folder"] == str(folder)
    assert made.facts[INIT_FACT]["files"].keys() == {"config.json", "diffusion_pytorch_model.safetensors"}
    shutil.rmtree(folder)
    before = load_file(first.store.path(made, "decoder"))
    assert not [name for name in before if "lora" in name]
    second = staged(first, init_from="tiny/decoder", finetune={"weights": "projection"})
    assert second.key != made.key
    assert second.facts[INIT_FACT] == {"run": "tiny", "manifest": made.path, "digest": made.digest}
    after = load_file(first.store.path(second, "decoder"))
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {"condition"}
    painter = load_decoder(first.store, second, first.shards("autoencoder")[0])
    assert painter.sample(torch.randn(2, DIM), range(2), steps=2).shape == (2, SIDE, SIDE, 3)
