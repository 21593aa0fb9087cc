"""An exported prior: it loads and samples where corgi cannot be imported, and gives what the native samplers give."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.samplers import ancestral, ddim
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.scheduler import ShiftedDiffusionScheduler
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.inference.export_prior import bundle, model_of, write_folder
from corgi.inference.prior_model import PriorModel
from corgi.inference.prior_pipeline import ShiftedPriorPipeline
from corgi.models.embedder import Sampling
from corgi.models.prior import Prior, PriorConfig
from corgi.models.text_prior import TextPrior
from tests.support.strangers import Strangers

FACTS = {"towers": '["own"]', "normalisation": "unit vectors", "data": "d1ge57"}
STRANGER = """
import json, sys
import torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipeline.set_progress_bar_config(disable=True)
text = torch.tensor(json.load(open(sys.argv[2])))
drawn = pipeline(text, generator=torch.Generator().manual_seed(5)).image_embeds
print(json.dumps({"drawn": drawn.tolist(), "corgi": [m for m in sys.modules if m.startswith("corgi.")],
    "facts": pipeline.prior.config.facts, "count": pipeline.prior.shift_table.count.tolist()}))
"""


def some_prior(rank: int = 0, rule: Any = "text", **changes: Any) -> TextPrior:
    """An untrained prior of three clusters whose answers are not constant."""
    torch.manual_seed(0)
    means = F.normalize(torch.randn(3, 8), dim=-1)
    factor = 0.1 * torch.randn(3, 8, rank) if rank else None
    table = ShiftTable(means, torch.full((3, 8), 0.2), factor, count=torch.tensor([5, 1, 9]))
    network = Prior(
        PriorConfig(dim=8, text_dim=8, width=16, depth=2, heads=2, cluster_token=True, **changes), table
    )
    torch.nn.init.normal_(network.get_parameter("head.2.weight"), std=0.5)
    return TextPrior(network.eval(), ShiftedDiffusion(table, Schedule.cosine(100)), ClusterChoice(rule))


def texts(num: int = 5) -> torch.Tensor:
    """Unit text embeddings."""
    return F.normalize(torch.randn(num, 8, generator=torch.Generator().manual_seed(1)), dim=-1)


def pipeline_of(prior: TextPrior, sampling: Sampling) -> ShiftedPriorPipeline:
    """The pipeline made in this process, without a folder."""
    sampler = "ddim" if sampling.sampler == "ddim" else "ancestral"
    scheduler = ShiftedDiffusionScheduler(100, "cosine", sampler=sampler)
    made = ShiftedPriorPipeline(model_of(prior, FACTS), scheduler, sampling.steps, sampling.guidance)
    made.set_progress_bar_config(disable=True)
    return made


def native(prior: TextPrior, text: torch.Tensor, sampling: Sampling, seed: int) -> torch.Tensor:
    """The native sampler with the noise a generator of that seed gives."""
    generator = torch.Generator().manual_seed(seed)
    denoise = prior.denoiser(prior.network.prefix(text))
    run = ddim if sampling.sampler == "ddim" else ancestral
    with torch.no_grad():
        z = run(
            denoise,
            prior.process,
            prior.cluster(text),
            lambda _: torch.randn(len(text), 8, generator=generator),
            sampling.steps,
        )
    return F.normalize(z, dim=-1)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_scheduler_inside_a_diffusers_pipeline_is_the_native_sampler(sampler: Any) -> None:
    """Same noise, same samples, for each of the two."""
    prior, text, sampling = some_prior(), texts(), Sampling(6, sampler)
    drawn = pipeline_of(prior, sampling)(text, generator=torch.Generator().manual_seed(3)).image_embeds  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(drawn, native(prior, text, sampling, 3), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_an_exported_prior_samples_where_corgi_cannot_be_imported(
    strangers: Strangers, tmp_path: Path
) -> None:
    """A process of its own, corgi blocked: the pipeline class, the weights and the statistics come from the folder."""
    prior, text, sampling = some_prior(rank=2), texts(), Sampling(4)
    folder = write_folder(prior, sampling, "cosine", FACTS, tmp_path / "prior")
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    (tmp_path / "text.json").write_text(json.dumps(text.tolist()))
    said = json.loads(strangers.run(STRANGER, tmp_path, folder, tmp_path / "text.json").splitlines()[-1])
    torch.testing.assert_close(
        torch.tensor(said["drawn"]), native(prior, text, sampling, 5), atol=1e-5, rtol=0
    )
    assert said["corgi"] == []
    assert said["facts"] == FACTS
    assert said["count"] == [5, 1, 9]


@pytest.mark.parametrize(
    "changes", [{}, {"rank": 2}, {"rule": "learned_soft", "choice_clusters": 3}], ids=str
)
def test_law_22_weights_statistics_schedule_and_choice_come_back_from_an_export(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Every buffer bit-equal; spread of samples after loading > 0 and as before within 5 %."""
    prior = some_prior(**changes)
    folder = write_folder(prior, Sampling(4), "cosine", FACTS, tmp_path / "prior")
    model = PriorModel.from_pretrained(folder / "prior")
    scheduler = ShiftedDiffusionScheduler.from_pretrained(folder / "scheduler")
    assert isinstance(scheduler, ShiftedDiffusionScheduler)
    before = model_of(prior, FACTS).state_dict()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(scheduler.betas, prior.process.schedule.betas[1:])
    loaded = TextPrior(model.network, ShiftedDiffusion(model.shift_table, scheduler.schedule), model.choice)
    text = texts(1).repeat(400, 1)
    drawn = [one.sample(text, range(400), Sampling(4)) for one in (prior, loaded)]
    assert torch.equal(*drawn)
    assert float(drawn[1].std(0).mean()) > 1e-3
    assert float(drawn[1].std(0).mean() / drawn[0].std(0).mean()) == pytest.approx(1, abs=0.05)


def test_candidates_and_guidance_of_the_pipeline() -> None:
    """More candidates are never further from the text; guidance changes the sample; a generator repeats it."""
    pipeline, text = pipeline_of(some_prior(), Sampling(4)), texts(40)

    def drawn(**options: Any) -> torch.Tensor:
        return pipeline(text, generator=torch.Generator().manual_seed(2), **options)[0]

    one, eight = (float((drawn(num_candidates=n) * text).sum(-1).mean()) for n in (1, 8))
    assert eight > one
    assert torch.equal(drawn(), drawn())
    assert not torch.allclose(drawn(guidance_scale=3.0), drawn())


def test_the_shipped_files_are_whole_and_know_no_corgi() -> None:
    """Each compiles, imports nothing of corgi or jaxtyping, and holds the class it is shipped for."""
    for module, name in (
        ("corgi.inference.prior_pipeline", "ShiftedPriorPipeline"),
        ("corgi.inference.prior_model", "PriorModel"),
        ("corgi.diffusion.scheduler", "ShiftedDiffusionScheduler"),
    ):
        source = bundle(module)
        compile(source, module, "exec")
        assert f"class {name}(" in source
        assert "import corgi" not in source
        assert "from corgi" not in source
        assert "jaxtyping import" not in source


def test_two_modules_that_define_one_name_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One file cannot hold both."""
    monkeypatch.setattr("corgi.inference.export_prior.PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("from corgi.b import other\nlimit = 1\n")
    (tmp_path / "b.py").write_text("limit = 2\nother = 3\n")
    with pytest.raises(ValueError, match=r"corgi\.b and corgi\.a both define limit"):
        bundle("corgi.a")
