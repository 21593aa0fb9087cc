"""Settings of the prior, the autoencoder and the evaluation."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corgi.baselines import VARIANTS
from corgi.names import TRAINED_SPACES, ChoiceRule, JudgeName, LatentSpaceName, SamplerName
from corgi.settings.section import OneOf, Section, added, neutral
from corgi.settings.training import TrainingSettings

AUTOENCODER_TRAINING = TrainingSettings(
    num_steps=1000,
    global_batch=16,
    lr=1e-3,
    weight_decay=0.01,
    betas=(0.9, 0.98),
    ema_decay=0.998,
    zero_stage=0,
)
VariantName = Annotated[str, OneOf(VARIANTS)]


class PriorSettings(Section):
    """The prior: caption -> CLIP image embedding, by shifted diffusion."""

    variants: tuple[VariantName, ...] = Field(default=("shifted",), min_length=1)
    """Choices of (mu, Sigma), one training each; the first is used to generate, the others are compared with it."""
    init_from: str = added("", since="0.2.0")
    """Weights to start from: the priors of another run, of the same variants, as RUN or RUN/prior, where RUN is a run's folder
    or the name of one under root. Empty: random weights."""
    width: int = Field(default=2048, ge=32)
    """Transformer width."""
    depth: int = Field(default=16, ge=1)
    """Transformer layers."""
    heads: int = Field(default=32, ge=1)
    """Attention heads."""
    cluster_token: bool = True
    """Give the network its cluster index as a token."""
    causal: bool = True
    """Causal attention, as in the paper's code; False: bidirectional."""
    rotary: bool = False
    """Rotary position embeddings; the paper's code has none."""
    num_text_tokens: int = Field(default=0, ge=0, le=1024)
    """Token states of a caption that the network reads; 0: only the text embedding."""
    text_encoder: str | None = None
    """Name of the encoder in embed.tokens whose token states are read; None: the only encoder there."""
    encoding_dim: int = Field(default=1024, ge=1)
    """Dimension of one token state."""
    activation_checkpointing: bool = neutral(False)
    """Recompute blocks in the backward pass: less memory, a third more compute."""
    standardise: bool = True
    """Give the network inputs, and read its outputs, in coordinates whitened by (mu, Sigma)."""
    prediction: Literal["x0", "eps", "v"] = "x0"
    """What the network predicts; the reference code predicts x0."""
    cluster_choice: ChoiceRule = "text"
    """How the cluster of a caption is chosen; learned: by a small head, trained on the picture's own cluster."""
    choice_temperature: float = Field(default=0.05, gt=0)
    """Temperature of the soft choice."""
    choice_draws: int = Field(default=1024, ge=1, le=1_000_000)
    """Draws per cluster of the Monte-Carlo choice."""
    learned_shift: bool = False
    """Learn (mu, Sigma) with the network, by the reference code's two additional losses."""
    noise_levels_per_caption: int = Field(default=1, ge=1, le=64)
    """Noise levels drawn for each caption of a batch, which is read once."""
    schedule: Literal["linear", "cosine", "linear_zero_snr", "cosine_zero_snr"] = "linear"
    """Noise schedule."""
    num_timesteps: int = Field(default=1000, ge=2)
    """T."""
    loss_weight: Literal["uniform", "one_minus_abar", "snr", "min_snr", "p2"] = "one_minus_abar"
    """Weight of the x0 error; the reference code's default is 1 - abar_t."""
    loss_metric: Literal["euclidean", "whitened"] = "euclidean"
    """Norm of the x0 error; whitened: Sigma^-1."""
    coarse_caption_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the drawn captions that are coarse, for pictures with a caption marked coarse."""
    text_drop_prob: float = Field(default=0.1, ge=0, lt=1)
    """Probability of training without the text."""
    sample_steps: int = Field(default=8, ge=1)
    """Sampler steps of generate."""
    sampler: SamplerName = "ancestral"
    """Sampler of generate; ancestral has the large variance, dpm++ is DPM-Solver++ 2M."""
    num_candidates: int = Field(default=1, ge=1, le=64)
    """Candidates drawn per picture, of which the one closest to the text is kept."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance scale; 1: none."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the initial weights, the order of the rows and the noise."""
    training: TrainingSettings = TrainingSettings()
    """The training."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.sample_steps > self.num_timesteps:
            raise ValueError(
                f"sample_steps {self.sample_steps} must be at most num_timesteps {self.num_timesteps}"
            )
        return self

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        if self.rotary and self.width // self.heads % 2:
            raise ValueError(
                f"rotary needs an even head dimension, width {self.width} / heads {self.heads} is odd"
            )
        if self.prediction == "eps" and self.schedule.endswith("zero_snr"):
            raise ValueError(
                "prediction eps is undefined where abar_T = 0: set prediction to x0 or v, or choose another schedule"
            )
        alone = self.learned_shift or self.cluster_choice.startswith("learned")
        if alone and self.training.zero_stage != 0:
            raise ValueError("a learned shift or cluster choice needs training.zero_stage=0")
        return self


class ConvSettings(Section):
    """The convolutional autoencoder of the kinds kl and vq, and its loss: L1 + perceptual_weight * feature distance."""

    widths: tuple[Annotated[int, Field(ge=8, le=2048)], ...] = Field(
        default=(32, 96, 192), min_length=1, max_length=8
    )
    """Channels of each level. The first level has half the picture's side, each further level half the side of the one before: three
    levels give latents of an eighth of the side (f8)."""
    blocks: int = Field(default=1, ge=1, le=8)
    """Residual blocks per level, in the encoder and in the decoder."""
    channels: int = Field(default=8, ge=1, le=256)
    """Latent channels of kind kl, and of vq with a learned codebook; finite scalar quantisation has one channel per entry of levels."""
    latent_noise: float = Field(default=0.1, ge=0, le=1)
    """Standard deviation of the noise added to the latents of kind kl in training, where each picture's latents have a mean
    square of 1."""
    perceptual_weight: float = Field(default=0.3, ge=0, le=100)
    """Weight of the distance between features of a frozen CLIP tower; 0: no tower is loaded."""
    perceptual_tower: str | None = None
    """Name of the tower in embed.towers; None: the first one, or the recipe's own trained tower."""
    perceptual_stages: int = Field(default=3, ge=1, le=64)
    """Number of first stages of a convolutional tower, or of first blocks of a transformer, whose features are compared."""


class QuantiserSettings(Section):
    """The codebook of kind vq."""

    codebook: Literal["fsq", "ema"] = added("fsq", since="0.2.0")
    """fsq: finite scalar quantisation, a fixed grid that needs neither a commitment loss nor the revival of codes. ema: codes that are
    initialised by k-means, follow a running mean of the latents assigned to them, and are moved to a latent if they are hardly used."""
    levels: tuple[Annotated[int, Field(ge=2, le=256)], ...] = Field(
        default=(8, 5, 5, 5), min_length=1, max_length=16
    )
    """Values per latent channel of fsq; the number of codes is their product."""
    num_codes: int = added(1024, since="0.2.0", ge=2, le=65_536)
    """Number of codes of ema, each a vector of conv.channels numbers."""
    decay: float = added(0.99, since="0.2.0", gt=0, lt=1)
    """Decay per step of the running means of ema."""
    commitment: float = added(0.25, since="0.2.0", ge=0, le=100)
    """Weight of the mean squared distance between latents and their codes in the loss of ema."""
    revive_below: float = added(0.02, since="0.2.0", ge=0, lt=1)
    """A code of ema that is used less than this share of the mean use is moved to a latent of the last step; 0: never."""
    min_code_use: float = Field(default=0.05, ge=0, le=1)
    """Smallest share of the codes that val pictures must use at the end of training; below it the stage fails."""

    @property
    def size(self) -> int:
        """Return the number of codes."""
        return self.num_codes if self.codebook == "ema" else math.prod(self.levels)


class AdversarialSettings(Section):
    """The adversarial loss of the kinds kl and vq: a patch discriminator that is trained together with the autoencoder."""

    weight: float = Field(default=0.0, ge=0, le=10)
    """Weight of the adversarial loss relative to L1; 0: no discriminator. VQGAN's weight is adaptive; a constant 0.1 is common."""
    start: float = Field(default=2 / 3, ge=0, lt=1)
    """Share of the training steps after which the losses of generator and discriminator begin."""
    widths: tuple[Annotated[int, Field(ge=8, le=1024, multiple_of=8)], ...] = Field(
        default=(64, 128, 256), min_length=1, max_length=6
    )
    """Channels of the discriminator's levels; each level halves the side."""


class PretrainedSettings(Section):
    """The autoencoder of kind pretrained: diffusers' AutoencoderKL, VQModel, AutoencoderTiny or AutoencoderDC."""

    path: str = ""
    """Local folder that save_pretrained wrote, or a hub id, which diffusers downloads."""
    subfolder: str = ""
    """Subfolder that holds config.json, such as vae; empty: the folder itself."""
    revision: str | None = None
    """Commit or tag of a hub id; None: the newest."""
    standardise: bool = added(True, since="0.2.0")
    """Standardise each latent channel to mean 0 and variance 1; False: only multiply latents by the autoencoder's scaling factor, as a
    U-Net that was trained with this autoencoder expects (`decoder.init_from`)."""
    quantise: bool = added(True, since="0.2.0")
    """Whether VQModel rounds latents to its codebook in decoding; Kandinsky's pipelines do not, and an export for them needs False."""


class AutoencoderSettings(Section):
    """The latent space of the decoder."""

    kind: LatentSpaceName = "linear"
    """linear: principal components of the pictures. kl: a convolutional autoencoder with noise on its latents. vq: a convolutional
    autoencoder with a codebook. pretrained: an autoencoder of diffusers. pixels: the pictures themselves. All but linear are spatial."""
    image_size: int = Field(default=64, ge=8, le=1024)
    """Side of the decoded picture, px."""
    latent_dim: int = Field(default=384, ge=1)
    """Number of principal components of kind linear."""
    max_fit_rows: int = Field(default=100_000, ge=1)
    """Largest number of train pictures on which the components of kind linear are fitted."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the fit, or of the initial weights, the order of the rows and the noise."""
    conv: ConvSettings = added(ConvSettings(), since="0.2.0")
    """The network and the loss of the kinds kl and vq."""
    quantiser: QuantiserSettings = added(QuantiserSettings(), since="0.2.0")
    """The codebook of kind vq."""
    adversarial: AdversarialSettings = added(AdversarialSettings(), since="0.2.0")
    """The adversarial loss of the kinds kl and vq."""
    pretrained: PretrainedSettings = added(PretrainedSettings(), since="0.2.0")
    """The autoencoder of kind pretrained."""
    training: TrainingSettings = added(AUTOENCODER_TRAINING, since="0.2.0")
    """The training of the kinds kl and vq; every ZeRO stage is supported, but only stages 0 to 2 with an adversarial loss or a learned codebook."""
    num_actors: int = neutral(1, ge=1)
    """Number of actors that encode the pictures; it does not change during the run."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs that Ray reserves per actor."""
    gpus_per_actor: float = neutral(0.0, ge=0)
    """GPUs that Ray reserves per actor."""
    encode_batch: int = neutral(64, ge=1, le=8192)
    """Pictures that an actor encodes at once."""
    decode_threads: int = neutral(2, ge=1)
    """Threads that decode stored pictures while the device computes."""

    @model_validator(mode="after")
    def _fewer_components_than_values(self) -> Self:
        if self.kind == "linear" and self.latent_dim > 3 * self.image_size**2:
            raise ValueError(
                f"latent_dim {self.latent_dim} must be at most the {3 * self.image_size**2} values of a picture"
            )
        return self

    @model_validator(mode="after")
    def _levels_fit_the_picture(self) -> Self:
        factor = 2 ** len(self.conv.widths)
        if self.kind in TRAINED_SPACES and self.image_size % factor:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of {factor}, as each of the {len(self.conv.widths)} conv.widths halves the side"
            )
        return self

    @property
    def has_learned_codebook(self) -> bool:
        """Return whether codes are learned from the latents in training."""
        return self.kind == "vq" and self.quantiser.codebook == "ema"

    @property
    def latent_channels(self) -> int:
        """Return the number of latent channels of the kinds kl and vq."""
        is_grid = self.kind == "vq" and not self.has_learned_codebook
        return len(self.quantiser.levels) if is_grid else self.conv.channels

    @model_validator(mode="after")
    def _codebook_fits(self) -> Self:
        if self.has_learned_codebook and self.training.zero_stage == 3:
            raise ValueError(
                "a learned codebook starts from whole weights within a step: set training.zero_stage to 0, 1 or 2"
            )
        return self

    @model_validator(mode="after")
    def _discriminator_fits(self) -> Self:
        if not self.adversarial.weight:
            return self
        if self.training.zero_stage == 3:
            raise ValueError(
                "an adversarial loss reads whole weights within a step: set training.zero_stage to 0, 1 or 2"
            )
        if self.image_size % 2 ** len(self.adversarial.widths):
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of {2 ** len(self.adversarial.widths)}, as each of adversarial.widths halves the side"
            )
        return self

    @model_validator(mode="after")
    def _pretrained_is_named(self) -> Self:
        if self.kind == "pretrained" and not self.pretrained.path:
            raise ValueError("kind pretrained needs pretrained.path, a folder or a hub id")
        return self


class EvaluateSettings(Section):
    """What the report measures."""

    steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(2, 8, 64), min_length=1)
    """Numbers of sampler steps at which the priors are compared."""
    samples_per_caption: int = Field(default=8, ge=2, le=256)
    """Samples per coarse caption for Frechet distance and two-sample cosine."""
    max_captions: int = Field(default=1000, ge=2)
    """Largest number of held-out captions scored."""
    max_pictures: int = Field(default=20_000, ge=2)
    """Largest number of pictures read, whole shards in order; retrieval and references are measured among them."""
    min_word_pictures: int = Field(default=6, ge=2)
    """Smallest number of pictures of a coarse caption that is scored."""
    grid_rows: int = Field(default=8, ge=1, le=64)
    """Rows of the sample grid for each of TRAIN and HELD-OUT."""
    max_painted: int = added(200, since="0.2.0", ge=2)
    """Largest number of pictures painted for each of TRAIN and HELD-OUT, once from the true embedding and once from the prior's."""
    softmax_temperature: float = Field(default=0.05, gt=0)
    """Temperature of the softmax-average reference."""
    judge: JudgeName | None = added(None, since="0.2.0")
    """Frozen network that is not part of the run and with whose features the painted pictures are scored, in addition to the run's own
    CLIP; the report then also has the references of retrieval and the share of copies. efficientnet_lite1: trained on ImageNet, from an
    installed package; of the same family as the image trunk of a tower section, with other weights. None: only the run's own CLIP."""
    memorisation: bool = added(False, since="0.2.0")
    """Whether painted pictures are compared with the nearest training pictures as latents of the autoencoder, and the share of copies
    is reported with its interval; held-out pictures determine the threshold."""
    concept_col: str | None = added(None, since="0.2.0")
    """Column in plan.save_additional_columns that names what a picture shows: held-out pictures whose concept occurs in another, trained
    picture (HELD-OUT PAIR) are measured separately from the others (HELD-OUT CONCEPT). None: all are HELD-OUT."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the samples."""
    gpus: float = neutral(0.0, ge=0)
    """GPUs that Ray reserves for the evaluation."""
