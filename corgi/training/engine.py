"""DeepSpeed as the loop uses it: ZeRO stages 0-3, bf16 or fp32, and steps that are skipped if a gradient is not finite."""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from corgi.settings.training import TrainingSettings
from corgi.training.ranks import world_size
from corgi.training.snapshot import TAG

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_BUCKET_NUMEL = 500_000_000


def prepare_process(settings: TrainingSettings) -> None:
    """Set what DeepSpeed and torch read once per process. Call this before anything imports DeepSpeed."""
    os.environ["DS_ACCELERATOR"] = "cuda" if settings.use_gpu else "cpu"
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "corgi" / "torch_extensions"))
    torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
    # DeepSpeed creates process groups of its own without a time-out: they would get torch's half hour, whatever Ray's setting.
    limit = timedelta(seconds=settings.collective_timeout_s)
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = limit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        from deepspeed.utils import logger

        _import_muon()
    logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed|deepspeed")
    # A shared-memory all-reduce for inference: training never calls it, and compiling it takes a compiler and 45 s.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _import_muon() -> None:
    """Import DeepSpeed's Muon, which ZeRO imports, without compiling it: no training here calls it, and loading torch's compiler takes seconds."""
    from deepspeed.runtime import compiler

    compiled = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compiled


class _OnHost:
    """A flag on the device that is copied to the host; reading it waits for nothing that was queued later."""

    def __init__(self, flag: Tensor) -> None:
        self._held = flag
        self._copied: torch.cuda.Event | None = None
        if flag.is_cuda:
            self._held = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def __bool__(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._held)


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that clips gradients, and leaves weights and moments unchanged if the gradient norm is not finite.

    DeepSpeed's own optimizers do both; at stage 0 it passes the gradients to this class unchanged. The fused kernel
    checks on the device whether the norm is finite, so the host does not wait for it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> None:
        """Take the parameters, and the settings' learning rate, betas, epsilon and weight decay."""
        super().__init__(
            parameters,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=settings.use_gpu and not settings.offload,
        )
        self.alone = settings.zero_stage == 0
        self.max_norm = settings.grad_clip
        self.finite: _OnHost | bool = True
        self._global_grad_norm: Tensor | float = 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step, or none if a gradient is not finite."""
        if self.alone:
            parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
            self._global_grad_norm = norm
            is_finite = torch.isfinite(norm)
            self.finite = _OnHost(is_finite)
            if self.defaults["fused"]:
                self.found_inf = (~is_finite).float()
            elif not is_finite:
                return
        super().step(closure)


def micro_batches(settings: TrainingSettings) -> int:
    """Return the number of micro-batches into which every worker's share is divided: as few as possible with at most `micro_batch` rows each."""
    largest = -(-settings.global_batch // world_size())
    smallest = settings.global_batch // world_size()
    return 1 if settings.micro_batch == 0 else min(-(-largest // settings.micro_batch), smallest)


def build_engine(model: nn.Module, settings: TrainingSettings, universal: bool = False) -> "DeepSpeedEngine":
    """Return the DeepSpeed engine of a model; float buffers stay fp32, and callers may pass fp32 and receive fp32.

    `universal` says that the checkpoint to be loaded was converted.
    At stage 0 bf16 is autocast over fp32 weights, which then are the master weights themselves: DeepSpeed's bf16 optimizer
    without ZeRO was observed to fall behind the other stages on the same steps.
    """
    import deepspeed

    buffers = {name: value.clone() for name, value in model.named_buffers() if value.is_floating_point()}
    if settings.activation_checkpointing:
        recompute_blocks(model)
    if settings.precision == "bf16":
        _compute_in_bf16(model, "cuda" if settings.use_gpu else "cpu")
    optimizer = GuardedAdamW([p for p in model.parameters() if p.requires_grad], settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config={**_config(model, settings, optimizer.alone), "checkpoint": {"load_universal": universal}},
            dist_init_required=False,
        )
    for name, value in model.named_buffers():
        if name in buffers:
            value.data = buffers[name].to(value.device)
    if settings.compile:
        engine.compile()
    return engine


def module_of(engine: "DeepSpeedEngine") -> nn.Module:
    """Return the model inside an engine."""
    module = engine.module
    assert isinstance(module, nn.Module)
    return module


def set_lr(engine: "DeepSpeedEngine", lr: float) -> None:
    """Set the learning rate of the next step."""
    optimizer: Any = engine.optimizer
    for group in optimizer.param_groups:
        group["lr"] = lr


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Return the learning rate of step `step`, counted from 0: linear warm-up, then constant or a cosine to zero."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def backward(engine: "DeepSpeedEngine", loss: Tensor, weight: float = 1.0) -> None:
    """Run the backward pass of a micro-batch's mean loss; a loss that is not finite makes every gradient NaN, so that all ranks skip the step.

    `weight` is the micro-batch's number of rows divided by the mean of that number over all ranks' micro-batches: with unequal
    shares the result is still the mean over the global batch.
    """
    finite = torch.isfinite(loss.detach())
    engine.backward(loss * torch.where(finite, weight, math.nan).to(loss))


def outcome(engine: "DeepSpeedEngine") -> Callable[[], bool]:
    """Return a function that returns whether the step just taken was skipped; its result is the same on every rank.

    At stage 0 the flag may not have arrived from the device yet. DeepSpeed's own optimizers have already waited for it.
    """
    optimizer: Any = engine.optimizer
    if isinstance(optimizer, GuardedAdamW):
        finite = optimizer.finite
        return lambda: not finite
    is_skipped = bool(getattr(optimizer, "overflow", False))
    return lambda: is_skipped


def load_engine(engine: "DeepSpeedEngine", folder: Path, universal: bool = False) -> None:
    """Restore the engine from a verified checkpoint, or from its converted copy; DeepSpeed reads no buffers from the latter, so they are loaded here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if path is None:
        raise RuntimeError(f"DeepSpeed did not load {folder}, although its hashes are correct")
    if universal:
        _load_buffers(module_of(engine), folder / TAG)


@torch.no_grad()
def _load_buffers(module: nn.Module, folder: Path) -> None:
    """Load a module's buffers from any worker's file: they are the same in all of them."""
    path = min(folder.glob("*model_states.pt"))
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", mmap=True, weights_only=False)["module"]
    for name, value in module.named_buffers():
        if name in state:  # buffers that are not persistent are in no file
            value.copy_(state[name])


def recompute_blocks(model: nn.Module) -> None:
    """Make every block of the model's module lists recompute its activations in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    for block in list(_blocks(model)):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _config(model: nn.Module, settings: TrainingSettings, alone: bool) -> dict[str, object]:
    accumulation = micro_batches(settings)
    # DeepSpeed rejects an odd bucket size, and a model may have an odd number of parameters.
    bucket = min(_BUCKET_NUMEL, 2 * math.ceil(sum(p.numel() for p in model.parameters()) / 2))
    # DeepSpeed uses the batch sizes only as labels and to divide by the accumulation; shares may be unequal.
    micro = max(1, settings.global_batch // world_size() // accumulation)
    zero: dict[str, object] = {
        "stage": settings.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if settings.use_gpu:
        # Reduce gradients during the backward pass; at stages 1 and 2 DeepSpeed by default reduces them after it.
        zero["overlap_comm"] = True
    if settings.offload:
        device = {"device": "cpu", "pin_memory": settings.use_gpu}
        zero |= {
            "offload_optimizer": device,
            **({"offload_param": device} if settings.zero_stage == 3 else {}),
        }
    return {
        "train_batch_size": micro * accumulation * world_size(),
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0 if alone else settings.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "bf16": {"enabled": settings.precision == "bf16" and not alone},
        "steps_per_print": 2**31,
    }


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the outermost module lists. Those of a list within a block would be recomputed once more for each level.

    A block without submodules, such as one convolution, stores no more than its input and is left out.
    """
    for part in model.children():
        if isinstance(part, nn.ModuleList):
            yield from (block for block in part if any(True for _ in block.children()))
        else:
            yield from _blocks(part)


def _compute_in_bf16(model: nn.Module, device: str) -> None:
    """Make a model compute in bf16 while inputs, tables and outputs stay fp32."""
    forward = model.forward

    def widened(*args: object, **kwargs: object) -> object:
        with torch.autocast(device, torch.bfloat16):
            return _float(forward(*args, **kwargs))

    model.forward = widened


def _float(value: object) -> object:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _float(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_float(item) for item in value)
    return value
