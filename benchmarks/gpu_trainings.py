"""The work of `benchmarks.gpu_check`: trainings on generated rows by the common loop, sampling and embedding."""

import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.noise import Noise
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.device import given_device
from corgi.models.embedder import Sampling
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.text_prior import TextPrior
from corgi.settings.decoder import DecoderSettings
from corgi.settings.models import PriorSettings
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.tables.schema import Split
from corgi.tracking.tracked_run import Shown
from corgi.training.alone import train_alone
from corgi.training.checkpoint import final_weights
from corgi.training.cost import prior_cost
from corgi.training.decoder import LatentObjective
from corgi.training.prior_loss import PriorLoss, PriorParts, network_of
from corgi.training.prior_sizes import config_of
from corgi.training.pseudo_text import PseudoText
from corgi.training.training import Training

CLUSTERS, UNITS, UNIT_ROWS, LOG_EVERY = 16, 8, 2048, 4


class GeneratedRows:
    """Random unit vectors: pictures, and captions near them."""

    def __init__(self, dim: int, latent: int = 0) -> None:
        """Take the dimensions; without a latent the rows are a prior's."""
        self.dim, self.latent = dim, latent
        self.counts = [UNIT_ROWS] * UNITS

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return a unit's rows, the same each time."""
        generator = np.random.default_rng(unit)
        image = _unit(generator.standard_normal((UNIT_ROWS, self.dim), np.float32))
        if self.latent:
            return {"image": image, "latent": generator.standard_normal((UNIT_ROWS, self.latent), np.float32)}
        text = _unit(image + 0.5 * generator.standard_normal(image.shape, np.float32) / self.dim**0.5)
        one = np.ones(UNIT_ROWS, np.int64)
        return {
            "image": image,
            "full": text[:, None],
            "coarse": text[:, None],
            "num_full": one,
            "num_coarse": one,
        }


class CheckedPrior(PriorLoss):
    """The prior's own loss on generated rows; `cut_at` ends the first attempt at a position."""

    def __init__(self, size: dict[str, Any], marker: str = "", cut_at: int = -1) -> None:
        """Take a table of the generated vectors."""
        self.marker, self.cut_at = Path(marker), cut_at
        self.generated = GeneratedRows(size["dim"])
        sizes = {name: size[name] for name in ("width", "depth", "heads")}
        image = torch.from_numpy(self.generated.load(0)["image"])
        table = ShiftTable.clusters(image[:CLUSTERS], image.std(0).expand(CLUSTERS, -1).contiguous())
        super().__init__(
            PriorParts(PriorSettings(**sizes, cluster_choice="soft"), table, ClusterChoice("soft"))
        )

    def split(self, split: Split) -> GeneratedRows:
        """Return the generated rows."""
        return self.generated

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the prior's loss, or end the attempt."""
        is_training = self.cut_at >= 0 and torch.is_grad_enabled()
        if is_training and int(noise.positions[0]) >= self.cut_at and not self.marker.exists():
            self.marker.touch()
            raise InterruptedError("the cut that the check asked for")
        return super().loss(model, batch, noise)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: speed is measured."""
        return {}

    def show(self, model: nn.Module) -> Shown:
        """Show nothing."""
        return Shown()


class CheckedDecoder(LatentObjective):
    """The decoder's own loss on generated rows."""

    def __init__(self, size: dict[str, Any]) -> None:
        """Take mean and scale of the generated vectors."""
        self.generated = GeneratedRows(size["dim"], size["latent"])
        settings = DecoderSettings(width=size["width"], depth=size["depth"], conditioning_noise=0.15)
        image = torch.from_numpy(self.generated.load(0)["image"])
        table = ShiftTable.standardised(image.mean(0), image.std(0))
        super().__init__(settings, table, (size["latent"],), PseudoText(0.0))

    def rows(self, split: Split = Split.TRAIN) -> GeneratedRows:
        """Return the generated rows."""
        return self.generated

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: speed is measured."""
        return {}


def trained(objective: type[Any], size: dict[str, Any], **settings: Any) -> dict[str, float]:
    """Train some steps and return samples per second, seconds, memory and loss of the last lap, and the waits of one loss."""
    with tempfile.TemporaryDirectory() as folder:
        training = _training(folder, objective, {"size": size}, size, settings)
        train_alone([training])
        told = json.loads(training.metrics_file.read_text().splitlines()[-1])
        lap = json.loads(training.tracked.timings_file.read_text().splitlines()[-1])
        phases = phase_shares(training.path / "profile")
    found = {
        "samples/s": lap["samples_per_s"],
        "s/step": lap["step_time_s"],
        "TFLOP/s": lap["tflops_per_worker"],
        "share waiting for data": lap["data_wait_share"],
        "GiB": lap["memory_gib"],
        "loss": told["loss"],
    }
    if "mfu" in lap:
        found["MFU"] = lap["mfu"]
    built = training.build()
    if isinstance(built, CheckedPrior):
        stage = training.settings.zero_stage
        table = built.table
        config = config_of(built.settings, table.dim, table.num_clusters, built.variant)
        cost = prior_cost(config, num_clusters=table.num_clusters)
        found["GiB of states by --plan"] = cost.state_bytes(stage, 1) / 2**30
    return {**found, **phases, "waits per loss": waits_of_a_loss(built, size["batch"])}


def phase_shares(folder: Path) -> dict[str, float]:
    """Return the share of each phase of the step in the traced steps: of the GPU's time where it was traced, else of the host's."""
    [trace] = folder.glob("step-*.json")
    spent: dict[str, dict[str, float]] = {}
    for event in json.loads(trace.read_text())["traceEvents"]:
        if str(event.get("name", "")).startswith("corgi/"):
            of_kind = spent.setdefault(event.get("cat", ""), {})
            of_kind[event["name"]] = of_kind.get(event["name"], 0.0) + event.get("dur", 0.0)
    seconds = spent.get("gpu_user_annotation") or spent["user_annotation"]
    total = sum(seconds.values())
    return {f"share of {name.removeprefix('corgi/')}": value / total for name, value in seconds.items()}


def waits_of_a_loss(objective: Any, batch: int) -> float:
    """Return how often a loss makes the host wait for the GPU, by torch's own count; 0 on a CPU."""
    device = given_device()
    if device.type != "cuda":
        return 0.0
    import warnings

    objective.place(device)
    model = objective.model().to(device)
    columns = {name: torch.from_numpy(v[:batch]).to(device) for name, v in objective.rows().load(0).items()}
    noise = Noise(0, torch.arange(batch), device)
    with torch.no_grad(), warnings.catch_warnings(record=True) as seen:
        objective.loss(model, columns, noise)
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        objective.loss(model, columns, noise)
        torch.cuda.set_sync_debug_mode("default")
    return float(sum("synchroniz" in str(warning.message) for warning in seen))


def resumed_is_equal(size: dict[str, Any]) -> bool:
    """Return whether a training cut in the middle and resumed ends with the weights of an unbroken one."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("whole", "cut"):
            cut_at = size["batch"] * 6 if name == "cut" else -1
            arguments = {"size": size, "marker": str(Path(folder) / "marker"), "cut_at": cut_at}
            settings = {"num_steps": 8, "checkpoint_every_steps": 4}
            training = _training(str(Path(folder) / name), CheckedPrior, arguments, size, settings)
            if name == "cut":
                try:
                    train_alone([training])
                except InterruptedError:
                    pass
                else:
                    raise RuntimeError("the training was not cut")
            train_alone([training])
            found.append(final_weights(training).read_bytes())
    return found[0] == found[1]


def seconds_per_picture(prior: dict[str, Any], decoder: dict[str, Any], count: int) -> float:
    """Return seconds per picture of untrained networks on the given device, from text embedding to bytes."""
    device = given_device()
    objective = CheckedPrior(prior)
    made = network_of(objective.settings, objective.table, "shifted").eval()
    sampler = TextPrior(made, objective.process, objective.choice).to(device)
    painting = CheckedDecoder({**decoder, "dim": prior["dim"]})
    network = painting.model().eval().to(device)
    pixels = 3 * 8 * 8
    autoencoder = LinearAutoencoder(
        torch.zeros(pixels), torch.zeros(decoder["latent"], pixels), torch.ones(decoder["latent"])
    ).to(device)
    painter = PictureDecoder(network, painting.process.to(device), autoencoder)  # pyright: ignore[reportArgumentType]
    text = F.normalize(torch.ones(count, prior["dim"]), dim=-1)
    sampling = Sampling(objective.settings.sample_steps)

    def once() -> None:
        painter.sample(sampler.sample(text, range(count), sampling), range(count)).cpu()

    return _seconds(once) / count


def embedding_rates(model: str, toy: bool) -> dict[str, float]:
    """Return pictures per second of an untrained tower: decoded from JPEG, and from pixels that are there."""
    from PIL import Image

    from corgi.clip.towers import load_tower
    from corgi.settings.clip import TowerRef

    batch = 4 if toy else 256
    tower = load_tower(TowerRef(name="checked", model=model, pretrained="random"), "fp32" if toy else "bf16")
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")

    def decoded() -> list[Image.Image]:
        return [Image.open(io.BytesIO(buffer.getvalue())).convert("RGB") for _ in range(batch)]

    pixels = torch.stack([tower.preprocess(picture) for picture in decoded()])
    return {
        f"{model} pictures/s": batch / _seconds(lambda: tower.pixels(pixels)),
        f"{model} pictures/s, decoded on one thread": batch / _seconds(lambda: tower.images(decoded())),
    }


def _training(
    folder: str,
    objective: type[Any],
    arguments: dict[str, Any],
    size: dict[str, Any],
    settings: dict[str, Any],
) -> Training:
    values = {
        "num_steps": size["steps"],
        "global_batch": size["batch"],
        "precision": "fp32",
        "zero_stage": 0,
        "use_gpu": given_device().type == "cuda",
        "log_every_steps": LOG_EVERY,
        "profile_steps": 2,
        "checkpoint_every_steps": 10**6,
        **settings,
    }
    return Training(
        name="gpu-check",
        folder=folder,
        objective=objective,
        arguments=arguments,
        settings=TrainingSettings(**values),
        tracking=TrackingSettings(mode="disabled"),
        group="gpu-check",
        seed=0,
    )


def _seconds(call: Callable[[], Any], times: int = 3) -> float:
    """Return the least seconds of a call after a first one, with all work of the GPU done."""
    best = float("inf")
    for number in range(times + 1):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number:
            best = min(best, time.perf_counter() - started)
    return best


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
