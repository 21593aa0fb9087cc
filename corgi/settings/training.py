"""Settings every training shares, and those of its tracking."""

from typing import Annotated, Literal

from pydantic import Field

from corgi.settings.section import Section, neutral


class TrainingSettings(Section):
    """Optimiser, batch, precision, workers and checkpoints of one training."""

    num_steps: int = Field(default=1000, ge=1)
    """Optimiser steps of the whole run."""
    global_batch: int = Field(default=256, ge=1)
    """Rows a step, over all workers."""
    lr: float = Field(default=1.1e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=0.06, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.96)
    """AdamW's moment decays."""
    eps: float = Field(default=1e-6, gt=0)
    """AdamW's epsilon."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """What the rate does after warm-up; cosine ends at zero."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    """Decay of the averaged weights, which are the ones used."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Compute type; master weights and averages are always fp32."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage."""
    num_workers: int = neutral(1, ge=1, le=4096)
    """Ray Train workers; the run is the same at any number, to rounding."""
    cpus_per_worker: float = neutral(1.0, gt=0)
    """CPUs Ray reserves for a worker."""
    use_gpu: bool = neutral(False)
    """One GPU a worker."""
    micro_batch: int = neutral(0, ge=0)
    """Rows a worker holds at once; 0: all of its share, no accumulation."""
    shuffle_window: int = Field(default=16, ge=1)
    """Row groups whose rows are shuffled together."""
    checkpoint_every_steps: int = neutral(200, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = neutral(2, ge=2)
    """Committed checkpoints kept; at least two, as the newest may be damaged later."""
    log_every_steps: int = neutral(20, ge=1)
    """Steps between metric lines."""
    eval_every_steps: int = neutral(0, ge=0)
    """Steps between evaluations on val; 0: only at the end."""
    max_failures: int = neutral(3, ge=0)
    """Worker-group restarts before the run gives up."""
    max_nonfinite_steps: int = Field(default=10, ge=1)
    """Steps with a non-finite loss, each skipped, before the run stops."""


class TrackingSettings(Section):
    """Weights & Biases: offline when no key is set, never a prompt."""

    project: str = "corgi"
    """W&B project."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online when WANDB_API_KEY or a netrc entry is there, offline otherwise."""
