"""Samplers and models on fake CUDA tensors: nothing is mixed, and no step of a chain makes the host wait."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.samplers import ancestral, ddim, philox_noise
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.scheduler import WhitenedScheduler, trained_betas
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.embedder import Sampling
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.prior import Prior, PriorConfig
from corgi.models.spatial_autoencoder import pixel_space
from corgi.models.text_prior import TextPrior
from corgi.models.unet import UNetSizes
from corgi.models.upsampler import Upsampler, upsampled
from corgi.names import ChoiceRule, NetworkName, SamplerName
from tests.support.fake_cuda import CUDA, Watch, fake_cuda, to_cuda
from tests.support.stable_unet import stable_config, stable_unet

pytestmark = pytest.mark.slow

DIM, ROWS = 8, 5
STEPS = 3
"""The first, one between and the last; the first is outside of an interval of guidance, the others are inside."""


def table_of(form: str = "diagonal") -> ShiftTable:
    torch.manual_seed(0)
    mean, scale = F.normalize(torch.randn(3, DIM), dim=-1), torch.full((3, DIM), 0.2)
    if form == "low rank":
        return ShiftTable(mean, scale, factor=0.1 * torch.randn(3, DIM, 2))
    if form == "full":
        return ShiftTable.from_covariance(mean, 0.04 * torch.eye(DIM).repeat(3, 1, 1))
    return ShiftTable.clusters(mean, scale)


def syncs_of_a_chain(watch: Watch, prior: TextPrior, steps: int, **options: Any) -> int:
    watch.syncs.clear()
    found = prior.sample(torch.zeros(ROWS, DIM, device=CUDA), range(ROWS), Sampling(steps, **options))
    assert found.device.type == "cuda"
    return watch.syncs.total()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        *(
            (form, {"sampler": name})
            for form in ("diagonal", "low rank", "full")
            for name in ("ancestral", "ddim")
        ),
        ("diagonal", {"sampler": "ancestral_small"}),
        ("diagonal", {"guidance": 2.0, "num_candidates": 3}),
    ],
    ids=str,
)
def test_a_prior_is_sampled_without_a_wait_per_step(form: str, options: dict[str, Any]) -> None:
    """Every form of Sigma in every kind of step; what does not look at Sigma, at one of them."""
    table = table_of(form)
    network = Prior(PriorConfig(dim=DIM, text_dim=DIM, width=16, depth=1, heads=2, cluster_token=True), table)
    process = ShiftedDiffusion(table, Schedule.linear(100))
    with fake_cuda() as watch:
        prior = TextPrior(to_cuda(network.eval()), process.to(CUDA))
        few, many = (syncs_of_a_chain(watch, prior, steps, **options) for steps in (2, 4))
    assert few == many <= 1, watch.syncs  # one look for NaN among the captions, whatever the number of steps


@pytest.mark.parametrize("rule", ["text", "monte_carlo", "soft", "learned", "learned_soft"])
def test_every_rule_chooses_on_the_device(rule: ChoiceRule) -> None:
    table = table_of()
    config = PriorConfig(dim=DIM, text_dim=DIM, width=16, depth=1, heads=2, choice_clusters=3)
    network, process = Prior(config, table).eval(), ShiftedDiffusion(table, Schedule.linear(100))
    with fake_cuda():
        prior = TextPrior(to_cuda(network), process.to(CUDA), ClusterChoice(rule, num_draws=8))
        assert prior.cluster(torch.zeros(ROWS, DIM, device=CUDA), range(ROWS)).device.type == "cuda"


@pytest.mark.parametrize(("sampler", "interval"), [("ddim", (0.0, 1.0)), ("ancestral", (0.2, 0.8))])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_is_painted_on_the_device(
    name: NetworkName, sampler: SamplerName, interval: tuple[float, float]
) -> None:
    """By every network, without a wait. The solver of diffusers plans with numpy: see below."""
    sizes = NetworkSizes((2, 4, 4), width=16, depth=1, unet=UNetSizes((8, 16), heads=2), heads=2)
    decoder = NETWORKS[name](sizes, ShiftTable.ddpm(DIM)).eval()
    autoencoder = LinearAutoencoder(torch.zeros(48), torch.ones(32, 48), torch.ones(32))
    process = ShiftedDiffusion(ShiftTable.ddpm(32), Schedule.named("cosine_zero_snr", 100))
    with fake_cuda() as watch:
        painter = PictureDecoder(
            to_cuda(decoder), process.to(CUDA), to_cuda(autoencoder), "v", sampler, interval
        )
        watch.syncs.clear()
        found = painter.sample(torch.zeros(ROWS, DIM, device=CUDA), range(ROWS), STEPS, 2.0)
    assert found.device.type == "cuda"
    assert watch.syncs.total() == 0, watch.syncs


@pytest.mark.parametrize("kind", ["own", "pretrained"])
def test_a_unet_that_reads_words_paints_on_the_device(kind: str) -> None:
    """Ours, and one of diffusers with its own schedule."""
    pretrained = stable_config(stable_unet()) if kind == "pretrained" else None
    sizes = NetworkSizes((3, 4, 4), 16, 1, UNetSizes((8, 16), heads=2), pretrained=pretrained, words=(2, 5))
    network, space = NETWORKS["unet"](sizes, ShiftTable.ddpm(DIM)).eval(), pixel_space(4)
    process = ShiftedDiffusion(ShiftTable.ddpm(48), Schedule.named("scaled_linear", 100))
    with fake_cuda() as watch:
        painter = PictureDecoder(to_cuda(network), process.to(CUDA), to_cuda(space), "eps")
        watch.syncs.clear()
        embedding, words = torch.zeros(ROWS, DIM, device=CUDA), torch.zeros(ROWS, 2, 5, device=CUDA)
        found = painter.sample(embedding, range(ROWS), STEPS, 2.0, words=words)
    assert found.device.type == "cuda"
    assert watch.syncs.total() == 0, watch.syncs


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_picture_is_made_larger_on_the_device(name: NetworkName) -> None:
    """By a step of a cascade, without a wait."""
    unet = UNetSizes((8, 16), attention=(), heads=2, middle_attention=False)
    sizes = NetworkSizes((3, 8, 8), width=16, depth=1, unet=unet, heads=2, low_channels=3)
    network, space = NETWORKS[name](sizes, ShiftTable.ddpm(DIM)).eval(), pixel_space(8)
    process = ShiftedDiffusion(ShiftTable.ddpm(192), Schedule.named("cosine_zero_snr", 100))
    with fake_cuda() as watch:
        painter = PictureDecoder(to_cuda(network), process.to(CUDA), to_cuda(space))
        upsampler = Upsampler(painter, 4, 0.01, STEPS, 2.0)
        watch.syncs.clear()
        small = torch.zeros(ROWS, 4, 4, 3, dtype=torch.uint8, device=CUDA)
        found = upsampled([upsampler], small, torch.zeros(ROWS, DIM, device=CUDA), range(ROWS))
    assert (found.device.type, found.shape) == ("cuda", (ROWS, 8, 8, 3))
    assert watch.syncs.total() == 0, watch.syncs


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_network_that_reads_a_regression_paints_on_the_device(name: NetworkName) -> None:
    sizes = NetworkSizes((3, 4, 4), 16, 1, UNetSizes((8, 16), heads=2), heads=2, regression=True)
    network, space = NETWORKS[name](sizes, ShiftTable.ddpm(DIM)).eval(), pixel_space(4)
    process = ShiftedDiffusion(ShiftTable.ddpm(48), Schedule.named("cosine_zero_snr", 100))
    with fake_cuda() as watch:
        painter = PictureDecoder(to_cuda(network), process.to(CUDA), to_cuda(space))
        watch.syncs.clear()
        found = painter.sample(torch.zeros(ROWS, DIM, device=CUDA), range(ROWS), STEPS, 2.0)
    assert found.device.type == "cuda"
    assert watch.syncs.total() == 0, watch.syncs


@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_guided_by_a_weak_network_is_painted_on_the_device(name: NetworkName) -> None:
    sizes = NetworkSizes((3, 4, 4), width=16, depth=1, unet=UNetSizes((8, 16), heads=2), heads=2)
    strong, weak = (NETWORKS[name](sizes, ShiftTable.ddpm(DIM)).eval() for _ in range(2))
    process, space = ShiftedDiffusion(ShiftTable.ddpm(48), Schedule.named("flow", 100)), pixel_space(4)
    with fake_cuda() as watch:
        painter = PictureDecoder(
            to_cuda(strong), process.to(CUDA), to_cuda(space), "flow", weak=to_cuda(weak)
        )
        watch.syncs.clear()
        found = painter.sample(torch.zeros(ROWS, DIM, device=CUDA), range(ROWS), STEPS, 2.0)
    assert found.device.type == "cuda"
    assert watch.syncs.total() == 0, watch.syncs


def test_dpm_solver_steps_on_the_device() -> None:
    """diffusers plans its chain with numpy, outside the fake GPU; the steps run inside."""
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    schedule, table = Schedule.linear(100), table_of()
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=100, trained_betas=trained_betas(schedule), prediction_type="sample"
    )
    whitened = WhitenedScheduler(solver, table)
    whitened.set_timesteps(4)
    solver.set_begin_index(0)
    with fake_cuda():
        table.to(CUDA)
        z, cluster = torch.zeros(ROWS, DIM, device=CUDA), torch.zeros(ROWS, dtype=torch.int64, device=CUDA)
        for tau in (99, 74, 50, 25):
            z = whitened.step(z, tau, z, cluster)
    assert z.device.type == "cuda"


def test_a_process_moves_as_it_was_computed() -> None:
    """Tables of a schedule are the same numbers on every device: they are moved, not computed again."""
    schedule = Schedule.named("cosine_zero_snr", 50)
    moved = schedule.to("cpu")
    for name in ("log_alpha_bar", "alpha_bar", "one_minus_alpha_bar", "pull", "shift"):
        assert name in moved.__dict__
        assert torch.equal(getattr(moved, name), getattr(schedule, name))
    process = ShiftedDiffusion(table_of(), schedule)
    with fake_cuda():
        found = process.to(CUDA)
        assert {value.device.type for value in vars(found.schedule).values()} == {"cuda"}
        cluster, t = (
            torch.zeros(ROWS, dtype=torch.int64, device=CUDA),
            torch.ones(ROWS, dtype=torch.int64, device=CUDA),
        )
        for sampler in (ancestral, ddim):
            z = sampler(lambda z, *_: z, found, cluster, philox_noise(range(ROWS), DIM, CUDA), 3)
            assert z.device.type == "cuda"
        assert found.posterior(z, z, t, t - 1, cluster).mean.device.type == "cuda"


def test_everything_of_a_prior_moves_with_it() -> None:
    """`to` leaves no table, schedule or weight behind; the meta device stands for a GPU."""
    table = table_of()
    config = PriorConfig(dim=DIM, text_dim=DIM, width=16, depth=1, heads=2, learned_shift=True)
    prior = TextPrior(Prior(config, table), ShiftedDiffusion(table, Schedule.linear(100))).to("meta")
    tensors = [
        *prior.network.state_dict().values(),
        *prior.process.table.state_dict().values(),
        *vars(prior.process.schedule).values(),
    ]
    assert {value.device.type for value in tensors} == {"meta"}
