"""DeepSpeed as the loop uses it: ZeRO stages 0-3, bf16 or fp32, and steps that refuse non-finite gradients."""

import logging
import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corgi.settings.errors import ClusterError
from corgi.settings.training import TrainingSettings
from corgi.training.checkpoint import Checkpoint
from corgi.training.ranks import world_size

TAG = "engine"
_BUCKET_NUMEL = 500_000_000


def prepare_process(settings: TrainingSettings) -> None:
    """Set what DeepSpeed and torch read once per process; call before anything imports DeepSpeed."""
    os.environ["DS_ACCELERATOR"] = "cuda" if settings.use_gpu else "cpu"
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "corgi" / "torch_extensions"))
    torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        from deepspeed.utils import logger
    logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed|deepspeed")
    # A shared-memory all-reduce for inference: training never calls it, and compiling it takes a compiler and 45 s.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that clips, and leaves weights and moments alone when the gradient norm is not finite.

    DeepSpeed's own optimizers do both; at stage 0 it hands the gradients to this class as they are.
    """

    def __init__(self, parameters: Any, settings: TrainingSettings) -> None:
        """Take the parameters and the settings' rate, decays and epsilon."""
        super().__init__(
            parameters,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        self.alone = settings.zero_stage == 0
        self.max_norm = settings.grad_clip
        self.overflow = False
        self._global_grad_norm = 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step, or none when a gradient is not finite."""
        if self.alone:
            held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.clip_grad_norm_(held, self.max_norm)
            self._global_grad_norm = float(norm)
            self.overflow = not math.isfinite(self._global_grad_norm)
            if self.overflow:
                return
        super().step(closure)


def micro_batches(settings: TrainingSettings) -> int:
    """Return into how many equal micro-batches a worker's share is cut: as few as `micro_batch` rows allow."""
    share = settings.global_batch // world_size()
    if settings.micro_batch == 0:
        return 1
    return next(n for n in range(1, share + 1) if share % n == 0 and share // n <= settings.micro_batch)


def build_engine(model: nn.Module, settings: TrainingSettings) -> Any:
    """Return the DeepSpeed engine of a model; float buffers stay fp32, callers may pass and get fp32.

    At stage 0 bf16 is autocast over fp32 weights, which are then their own masters: DeepSpeed's bf16 optimizer
    without ZeRO was seen to fall behind the other stages on the same steps.
    """
    import deepspeed

    buffers = {name: value.clone() for name, value in model.named_buffers() if value.is_floating_point()}
    if settings.precision == "bf16":
        _compute_in_bf16(model, "cuda" if settings.use_gpu else "cpu")
    optimizer = GuardedAdamW([p for p in model.parameters() if p.requires_grad], settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=_config(model, settings, optimizer.alone),
            dist_init_required=False,
        )
    for name, value in model.named_buffers():
        if name in buffers:
            value.data = buffers[name].to(value.device)
    return engine


def set_lr(engine: Any, lr: float) -> None:
    """Set the rate of the next step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Return the rate of step `step`, counted from 0: linear warm-up, then constant or a cosine to zero."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def backward(engine: Any, loss: Tensor) -> None:
    """Run backward; a loss that is not finite makes every gradient NaN, so that all ranks refuse the step alike."""
    finite = torch.isfinite(loss.detach())
    engine.backward(loss * torch.where(finite, 1.0, math.nan).to(loss))


def skipped(engine: Any) -> bool:
    """Say whether the last step was refused; the same on every rank."""
    return bool(getattr(engine.optimizer, "overflow", False))


def save_engine(engine: Any, folder: Path) -> None:
    """Write this rank's shard of the engine's state into a checkpoint that is being made."""
    engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    if engine.global_rank == 0:  # DeepSpeed leaves a script in each checkpoint; a checkpoint holds data only
        (folder / "zero_to_fp32.py").unlink(missing_ok=True)


def load_engine(engine: Any, checkpoint: Checkpoint, settings: TrainingSettings) -> None:
    """Restore the engine from a verified checkpoint.

    Raises:
        ClusterError: another number of workers wrote it and the ZeRO stage splits its state.

    """
    wrote = checkpoint.state["world_size"]
    if settings.zero_stage > 0 and wrote != world_size():
        raise ClusterError(
            f"{checkpoint.folder} was written by {wrote} workers and ZeRO stage {settings.zero_stage} splits it among them, this run has "
            f"{world_size()}; nothing is lost; set num_workers={wrote} to go on"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, _ = engine.load_checkpoint(str(checkpoint.folder), tag=TAG)
    if path is None:
        raise RuntimeError(f"DeepSpeed did not load {checkpoint.folder}, whose hashes are right")


def _config(model: nn.Module, settings: TrainingSettings, alone: bool) -> dict[str, Any]:
    accumulation = micro_batches(settings)
    # DeepSpeed refuses an odd bucket, and a model may have an odd number of parameters.
    bucket = min(_BUCKET_NUMEL, 2 * math.ceil(sum(p.numel() for p in model.parameters()) / 2))
    return {
        "train_batch_size": settings.global_batch,
        "train_micro_batch_size_per_gpu": settings.global_batch // world_size() // accumulation,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0 if alone else settings.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "bf16": {"enabled": settings.precision == "bf16" and not alone},
        "steps_per_print": 2**31,
    }


def _compute_in_bf16(model: nn.Module, device: str) -> None:
    """Let a model compute in bf16 while it takes fp32 inputs and tables and gives fp32 outputs."""
    forward = model.forward

    def widened(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _float(forward(*args, **kwargs))

    model.forward = widened


def _float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _float(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_float(item) for item in value)
    return value
