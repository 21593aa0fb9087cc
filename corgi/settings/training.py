"""Settings that all trainings share, and those of tracking."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corgi.settings.section import Section, added, neutral


class TrainingSettings(Section):
    """Optimiser, batch, precision, workers and checkpoints of one training."""

    num_steps: int = Field(default=1000, ge=1)
    """Optimiser steps of the whole run."""
    global_batch: int = Field(default=256, ge=1)
    """Rows per step, over all workers."""
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
    """Learning rate after warm-up; cosine ends at zero."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    """Decay of the averaged weights, which are the weights that are used after training."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Compute type; master weights and averages are always fp32."""
    tf32: bool = added(False, since="0.2.0")
    """Let a GPU multiply fp32 matrices with 10 bits of mantissa (TF32): eight times the speed on an A100."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage."""
    num_workers: int = neutral(1, ge=1, le=4096)
    """Number of Ray Train workers; the result is the same with any number, to rounding."""
    min_workers: int = neutral(0, ge=0, le=4096)
    """Smallest number of workers with which the training continues when nodes are missing; 0: exactly num_workers."""
    cpus_per_worker: float = neutral(1.0, gt=0)
    """CPUs that Ray reserves per worker."""
    use_gpu: bool = neutral(False)
    """Use one GPU per worker."""
    micro_batch: int = neutral(0, ge=0)
    """Rows that a worker processes at once; 0: its whole share of a batch, without gradient accumulation."""
    offload: bool = neutral(False)
    """Keep optimiser state (and, at ZeRO stage 3, weights) in the node's CPU memory; needs a stage of at least 1."""
    compile: bool = neutral(False)
    """Compile the model with torch.compile."""
    activation_checkpointing: bool = neutral(False)
    """Recompute the blocks of a model's module lists in the backward pass instead of keeping their activations."""
    lanes: int | None = added(None, since="0.2", ge=1)
    """Number of lanes into which the order of the rows is divided; a divisor of global_batch. A worker reads only the units of its own
    lanes. None: the largest divisor up to 64."""
    shuffle_window: int = Field(default=16, ge=1)
    """Size of the shuffle windows of all lanes together, in units of rows; the rows in a window are shuffled."""
    checkpoint_every_steps: int = neutral(200, ge=1)
    """Steps between checkpoints."""
    checkpoint_every_minutes: float = neutral(30.0, ge=0)
    """Minutes after which a checkpoint is made at any step, by rank 0's clock; 0: never."""
    keep_checkpoints: int = neutral(2, ge=2)
    """Number of newest committed checkpoints kept; at least two, since the newest may be damaged later."""
    keep_best: int = neutral(0, ge=0)
    """Number of best committed checkpoints, by `best_metric`, that are kept in addition."""
    best_metric: str = neutral("loss")
    """Metric on val that ranks them; a checkpoint at whose step it was not measured (`eval_every_steps`) has no rank."""
    best_is: Literal["largest", "smallest"] = neutral("smallest")
    """Which value of `best_metric` is best."""
    upload: str = neutral("")
    """URL in object storage (s3://, gs://, az://, file://) to which committed checkpoints are copied, in the background; credentials come from the node's environment."""
    log_every_steps: int = neutral(20, ge=1)
    """Steps between metric lines."""
    eval_every_steps: int = neutral(0, ge=0)
    """Steps between evaluations on val; 0: only at the end."""
    max_failures: int = neutral(3, ge=0)
    """Restarts of the worker group after which the run fails."""
    max_preemptions: int = neutral(20, ge=0)
    """Restarts after a node was preempted with notice, counted separately from failures."""
    collective_timeout_s: float = neutral(1800.0, ge=5)
    """Seconds a worker waits for the others before the group is restarted."""
    profile_steps: int = neutral(0, ge=0, le=100)
    """Steps traced by torch's profiler on rank 0, from the third step of an attempt on; 0: none."""
    peak_tflops: float = neutral(0.0, ge=0)
    """Peak TFLOP/s of a worker's device, for MFU; 0: that of a known GPU by its name, and no MFU on other devices."""
    max_nonfinite_steps: int = Field(default=10, ge=1)
    """Steps with a non-finite loss, each of which is skipped, before the run stops."""

    @model_validator(mode="after")
    def _workers_fit(self) -> Self:
        if self.min_workers > self.num_workers:
            raise ValueError(f"min_workers {self.min_workers} must be at most num_workers {self.num_workers}")
        if self.num_workers > self.global_batch:
            raise ValueError(
                f"num_workers {self.num_workers} must be at most global_batch {self.global_batch}"
            )
        return self

    @model_validator(mode="after")
    def _lanes_fit(self) -> Self:
        if self.lanes is not None and self.global_batch % self.lanes:
            raise ValueError(f"lanes {self.lanes} must divide global_batch {self.global_batch}, or be null")
        return self

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        if self.offload and self.zero_stage == 0:
            raise ValueError("offload needs zero_stage 1, 2 or 3: stage 0 splits nothing")
        return self


class TrackingSettings(Section):
    """Weights & Biases: offline if no key is set; it never prompts for one.

    What a recipe does not set is taken from W&B's own environment variables and settings files.
    """

    project: str = "corgi"
    """W&B project; if a recipe names none, WANDB_PROJECT takes precedence over this default."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: as WANDB_MODE says; if it does not forbid it, online if there is a key (WANDB_API_KEY, netrc), else offline. The other modes override WANDB_MODE."""
    entity: str = neutral("")
    """W&B user or team; empty: WANDB_ENTITY, else the key's own."""
    group: str = neutral("")
    """Group of the W&B runs; empty: WANDB_RUN_GROUP, else the name of the pipeline run."""
    tags: tuple[str, ...] = neutral(())
    """Tags of the W&B runs; empty: WANDB_TAGS."""
    server: str = neutral("")
    """Address of the W&B server; empty: WANDB_BASE_URL, else W&B's own."""
