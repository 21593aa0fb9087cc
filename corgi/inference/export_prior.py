"""Export of a trained prior to a folder that diffusers loads without corgi: weights, configuration and code."""

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import safe_open

from corgi.diffusion.samplers import SAMPLERS
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.scheduler import PREDICTIONS, ShiftedDiffusionScheduler
from corgi.inference.prior_model import PriorModel, TableShape
from corgi.models.embedder import Sampling
from corgi.models.text_prior import TextPrior
from corgi.settings.errors import InputError
from corgi.settings.models import PriorSettings
from corgi.tables.run import Run
from corgi.training.prior import load_prior

PACKAGE = Path(__file__).resolve().parents[1]
PIPELINE, MODEL, SCHEDULER = "shifted_prior_pipeline", "shifted_prior_model", "shifted_prior_scheduler"
"""Names of the modules in the folder."""
SHIPPED = {
    "": (PIPELINE, "corgi.inference.prior_pipeline"),
    "prior": (MODEL, "corgi.inference.prior_model"),
    "scheduler": (SCHEDULER, "corgi.diffusion.scheduler"),
}
"""Folder of a component -> (the module's name in it, the module of corgi that it is made from)."""
SHAPES = '''
class _Shaped:
    """Replaces jaxtyping, which need not be installed to load this folder: the annotation is the array's type."""

    def __class_getitem__(cls, item):
        return item[0]


Bool = Float = Int = Num = Shaped = UInt8 = UInt32 = UInt64 = _Shaped
'''


def export_prior(run_folder: str | Path, out: str | Path, variant: str | None = None) -> Path:
    """Write the trained prior of a run to a new folder and return the folder; the first variant unless one is named.

    Raises:
        InputError: the run has no prior or no such variant, or the folder is not empty.

    """
    run = Run.open(run_folder)
    prior, shift = run.shards("prior")[0], run.shards("shift")[0]
    settings = PriorSettings.recorded(prior.settings["prior"])
    chosen = settings.variants[0] if variant is None else variant
    if chosen not in settings.variants:
        raise InputError(
            f"run {run.folder.name} trained {', '.join(settings.variants)}, not {chosen!r}; nothing was written; name one of them"
        )
    with safe_open(run.store.path(shift, "shift"), "numpy") as file:
        sources = {name: file.metadata().get(name, "") for name in ("towers", "normalisation", "data")}
    facts = {
        **sources,
        "run": run.folder.name,
        "variant": chosen,
        "prior": prior.digest,
        "code": prior.code,
    }
    sampling = Sampling(settings.sample_steps, settings.sampler, settings.guidance, settings.num_candidates)
    text_prior = load_prior(run.store, prior, shift, chosen)
    return write_folder(text_prior, sampling, settings.schedule, facts, new_folder(out))


def write_folder(
    prior: TextPrior, sampling: Sampling, schedule: str, facts: Mapping[str, object], out: Path
) -> Path:
    """Write a prior into an empty folder and return the folder."""
    model_of(prior, facts).save_pretrained(out / "prior", safe_serialization=True)
    _scheduler(prior, sampling, schedule).save_pretrained(out / "scheduler")
    for folder, (name, module) in SHIPPED.items():
        (out / folder / f"{name}.py").write_text(bundle(module))
    index = {
        "_class_name": [PIPELINE, "ShiftedPriorPipeline"],
        "_diffusers_version": diffusers_version(),
        "prior": [MODEL, "PriorModel"],
        "scheduler": [SCHEDULER, "ShiftedDiffusionScheduler"],
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance,
        "num_candidates": sampling.num_candidates,
    }
    (out / "README.md").write_text(_card(prior, facts))
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return out


def model_of(prior: TextPrior, facts: Mapping[str, object]) -> PriorModel:
    """Return a trained prior as a diffusers component; its weights are copied in float32.

    Raises:
        ValueError: the network standardises with a table of a different shape than the process.

    """
    table, own = prior.process.table, prior.network.table
    shape = TableShape.of(table)
    if own is not None and TableShape.of(own) != shape:
        raise ValueError("the network standardises with a table of a different shape than the process")
    model = PriorModel(
        sizes=asdict(prior.network.config),
        table_shape=asdict(shape),
        choice_rule=asdict(prior.choice),
        facts=dict(facts),
    )
    model.network.load_state_dict(prior.network.state_dict())
    model.shift_table.load_state_dict(table.state_dict())
    return model.eval()


def bundle(module: str) -> str:
    """Return the text of one file that contains a module of corgi after all modules of corgi that it needs.

    Imports of corgi are removed; jaxtyping is replaced by a stand-in.

    Raises:
        ValueError: two modules define the same name, so they cannot be in one file.

    """
    ordered: dict[str, ast.Module] = {}
    _collect(module, ordered)
    owner: dict[str, str] = {}
    parts = [f'"""{ast.get_docstring(ordered[module])}\n\nMade by `pipelines/export.py` of Corgi."""\n']
    imports, bodies = [], []
    for name, tree in ordered.items():
        for defined in _defined(tree):
            if owner.setdefault(defined, name) != name:
                raise ValueError(f"{owner[defined]} and {name} both define {defined}")
        kept = [node for node in tree.body if not _is_left_out(node)]
        imports += [node for node in kept if isinstance(node, ast.Import | ast.ImportFrom)]
        rest = [node for node in kept if not isinstance(node, ast.Import | ast.ImportFrom)]
        bodies.append(f"# {name}\n\n" + ast.unparse(ast.Module(rest, type_ignores=[])))
    return "\n\n".join([*parts, _merged(imports), SHAPES, *bodies]) + "\n"


def _collect(module: str, ordered: dict[str, ast.Module]) -> None:
    """Parse a module after the modules that it imports from corgi."""
    if module in ordered:
        return
    tree = ast.parse((PACKAGE / Path(*module.split(".")[1:])).with_suffix(".py").read_text())
    for node in ast.walk(tree):  # imports inside functions too
        if isinstance(node, ast.ImportFrom) and _is_of_corgi(node):
            _collect(node.module or "", ordered)
    ordered[module] = _WithoutCorgi().visit(tree)


class _WithoutCorgi(ast.NodeTransformer):
    """Removes imports of corgi inside functions: the file contains what they import."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [one for one in node.body if not (isinstance(one, ast.ImportFrom) and _is_of_corgi(one))]
        return node


def _is_of_corgi(node: ast.ImportFrom) -> bool:
    return (node.module or "").startswith("corgi.")


def _merged(imports: Iterable[ast.Import | ast.ImportFrom]) -> str:
    """Return the import lines of all modules, one line per imported module."""
    plain, names = set(), {}
    for node in imports:
        if isinstance(node, ast.Import):
            plain.add(ast.unparse(node))
        else:
            names.setdefault(node.module, set()).update(ast.unparse(name) for name in node.names)
    return "\n".join(
        [
            *sorted(plain),
            *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)),
        ]
    )


def _is_left_out(node: ast.stmt) -> bool:
    """Return whether a statement is left out of the file: module docstrings, `__all__`, and imports from corgi and jaxtyping."""
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in ("corgi", "jaxtyping")
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__all__"]
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _defined(tree: ast.Module) -> Iterable[str]:
    """Return the names that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (
                target.id for target in targets if isinstance(target, ast.Name) and target.id != "__all__"
            )


def _scheduler(prior: TextPrior, sampling: Sampling, schedule: str) -> ShiftedDiffusionScheduler:
    """Return a scheduler with the sampler closest to the recipe's. DPM-Solver++ becomes DDIM, which needs about as many steps."""
    names = {kind: name for name, kind in PREDICTIONS.items()}
    sampler = SAMPLERS[sampling.sampler]
    steps: Schedule = prior.process.schedule
    return ShiftedDiffusionScheduler(
        num_train_timesteps=steps.num_steps,
        beta_schedule=schedule,
        prediction_type=names[prior.network.config.prediction],
        sampler=sampler.exported_step,
        variance=sampler.exported_variance,
    )


def new_folder(out: str | Path) -> Path:
    """Make a folder if needed and return it; it must be empty.

    Raises:
        InputError: it cannot be made, or is not empty.

    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; nothing was written; name a folder you may write"
        ) from error
    if taken:
        raise InputError(f"{folder} is not empty; nothing was written; name a new folder")
    return folder


def diffusers_version() -> str:
    """Return the version of diffusers for which a folder is written."""
    import diffusers

    return diffusers.__version__


def _card(prior: TextPrior, facts: Mapping[str, object]) -> str:
    """Return the folder's README."""
    table = prior.process.table
    return f"""# Shifted diffusion prior

CLIP text embedding in, CLIP image embedding out: {table.dim} dimensions, {table.num_clusters} clusters, T = {prior.process.schedule.num_steps}.

    import torch
    from diffusers import DiffusionPipeline

    prior = DiffusionPipeline.from_pretrained("PATH OF THIS FOLDER", trust_remote_code=True)
    image_embeds = prior(text_embeds, generator=torch.Generator().manual_seed(0)).image_embeds

`trust_remote_code` runs the Python files of this folder: read them first. They need torch, numpy and diffusers, not corgi.
The embeddings are those of the towers {facts.get("towers", "")}; {facts.get("normalisation", "")}.
Made from: {json.dumps(facts, sort_keys=True)}
"""
