"""Settings of the decoder: its network, its objective, how it paints."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corgi.names import NetworkName, PseudoTextName, SamplerName
from corgi.settings.section import Section, added
from corgi.settings.training import TrainingSettings


class UNetSettings(Section):
    """Sizes of the convolutional decoder network (`decoder.network=unet`)."""

    widths: tuple[Annotated[int, Field(ge=8, le=4096, multiple_of=8)], ...] = Field(
        default=(96, 192), min_length=1, max_length=8
    )
    """Channels of each level; the first level has the side of the latent, each further level half the side of the one before."""
    layers: int = Field(default=1, ge=1, le=8)
    """Residual blocks per level on the way down; one more per level on the way up."""
    attention: tuple[Annotated[int, Field(ge=0)], ...] = (1,)
    """Levels with attention, counted from 0."""
    middle_attention: bool = added(True, since="0.2.0")
    """Whether the middle block has attention too."""
    heads: int = Field(default=4, ge=1, le=64)
    """Attention heads; each width must be a multiple of it."""
    tokens: int = Field(default=4, ge=1, le=256)
    """Number of tokens into which the image embedding is projected, and which attention reads."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability in the residual blocks in training."""
    kandinsky: bool = added(False, since="0.2.0")
    """Whether the embedding conditions the network as in Kandinsky 2.2, by 32 tokens and a vector, each normalised: the network is then
    entirely a diffusers class, and `export.py --stock` writes it without code. `tokens` has no effect."""

    @model_validator(mode="after")
    def _levels_exist_and_heads_fit(self) -> Self:
        missing = [level for level in self.attention if level >= len(self.widths)]
        if missing:
            raise ValueError(
                f"attention names level {missing[0]}; the levels are 0 to {len(self.widths) - 1}"
            )
        uneven = [width for width in self.widths if width % self.heads]
        if uneven:
            raise ValueError(f"width {uneven[0]} must be a multiple of heads {self.heads}")
        return self


class DiTSettings(Section):
    """Sizes of the transformer decoder network (`decoder.network=dit`), in addition to `decoder.width` and `decoder.depth`."""

    heads: int = Field(default=8, ge=1, le=64)
    """Attention heads; decoder.width must be a multiple of it."""
    patch: int = Field(default=2, ge=1, le=64)
    """Side of the square of latents that is one token; the latent's side must be a multiple of it."""


class FineTuneSettings(Section):
    """Which weights are trained in a decoder that starts from trained weights (`decoder.init_from`)."""

    weights: Literal["all", "projection", "lora"] = "all"
    """projection: only the layers that project the image embedding. lora: these, and low-rank additions to the attention, by the
    package peft (extra finetune). all: every weight."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of lora's additions; their scale is 1."""


class WeakSettings(Section):
    """The weak network that autoguidance guides away from: a second, shorter moving average of the weights, taken at an earlier step."""

    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average."""
    until: float = Field(default=0.5, gt=0, le=1)
    """Share of the training steps after which the average is no longer updated."""


class DenoiserSettings(Section):
    """A denoising network that is conditioned on an image embedding: its sizes, its objective, and its sampling."""

    network: NetworkName = added("mlp", since="0.2")
    """mlp: residual blocks on the flat latent. unet: convolutions on a spatial latent. dit: a transformer on patches of a spatial latent."""
    width: int = Field(default=640, ge=16)
    """Width of the residual blocks of mlp, or of the tokens of dit."""
    depth: int = Field(default=4, ge=1)
    """Blocks of mlp or dit."""
    unet: UNetSettings = added(UNetSettings(), since="0.2.0")
    """Sizes of the network unet."""
    dit: DiTSettings = added(DiTSettings(), since="0.2.0")
    """Other sizes of the network dit."""
    schedule: Literal["cosine", "linear", "scaled_linear", "flow"] = "cosine"
    """Noise schedule, rescaled to zero terminal SNR; scaled_linear: Stable Diffusion's; flow: the straight path of flow
    matching."""
    zero_terminal_snr: bool = added(True, since="0.2.0")
    """Whether no signal of the picture is left at T; False is for prediction eps, with the schedule linear or scaled_linear."""
    prediction: Literal["v", "x0", "eps", "flow"] = added("v", since="0.2.0")
    """What the network predicts; flow: the velocity eps - x_0."""
    loss_weight: Literal["none", "min_snr"] = added("none", since="0.2.0")
    """Weight of the squared error of the prediction; min_snr: the weight that is equivalent to min(SNR, 5) on the error of x_0."""
    num_timesteps: int = Field(default=1000, ge=2)
    """T."""
    embedding_drop_prob: float = Field(default=0.1, ge=0, lt=1)
    """Probability of training without the embedding, for classifier-free guidance."""
    conditioning_noise: float = Field(default=0.0, ge=0, le=1)
    """Standard deviation of the noise that is added to the standardised embedding in training."""
    noise_level_known: bool = added(False, since="0.2.0")
    """Draw each row's share of noise between 0 and conditioning_noise squared, and condition the network on it; sampling uses share 0."""
    pseudo_text_xi: float = added(0.0, since="0.2.0", ge=0, le=100)
    """Train on the pseudo text unit(z + xi eps / norm(eps)) of each picture and sample from the captions' own text embeddings: training
    needs no captions (Lafite). Its cosine to z is 1/sqrt(1 + xi^2): choose xi from the measured cosine of captions and pictures.
    0: train on z and sample from the prior's image embeddings."""
    sample_steps: int = Field(default=20, ge=1)
    """Sampler steps."""
    sampler: SamplerName = added("ddim", since="0.2.0")
    """Sampler of generate; ddim is Euler's method on the probability flow, dpm++ is DPM-Solver++ 2M."""
    guidance: float = Field(default=1.5, ge=0)
    """Classifier-free guidance scale."""
    guidance_interval: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (
        added((0.0, 1.0), since="0.2.0")
    )
    """Shares of T between which guidance is used; outside, its scale is 1 (Kynkaanniemi et al. 2024)."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the initial weights, the order of the rows and the noise."""
    training: TrainingSettings = TrainingSettings()
    """The training."""

    @model_validator(mode="after")
    def _steps_exist(self) -> Self:
        if self.sample_steps > self.num_timesteps:
            raise ValueError(
                f"sample_steps {self.sample_steps} must be at most num_timesteps {self.num_timesteps}"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        keeps_signal = self.schedule in ("linear", "scaled_linear") and not self.zero_terminal_snr
        if self.prediction == "eps" and not keeps_signal:
            raise ValueError(
                "prediction eps divides by the signal that is left at T: set schedule=linear and zero_terminal_snr=false, or take v"
            )
        if self.schedule == "flow" and not self.zero_terminal_snr:
            raise ValueError("schedule flow ends in pure noise: leave zero_terminal_snr true")
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(f"guidance_interval {self.guidance_interval} must ascend")
        if self.noise_level_known and self.conditioning_noise == 0:
            raise ValueError("noise_level_known needs conditioning_noise above 0")
        return self

    @model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        if self.network == "dit" and (self.width % self.dit.heads or self.width % 4):
            raise ValueError(
                f"width {self.width} must be a multiple of 4 and of dit.heads {self.dit.heads} for the network dit"
            )
        return self


class DecoderSettings(DenoiserSettings):
    """The decoder: CLIP image embedding -> latents, by diffusion."""

    init_from: str = added("", since="0.2.0")
    """Weights to start from: a local folder of a UNet2DConditionModel like Stable Diffusion's, as save_pretrained writes
    it, or the decoder of another run as RUN or RUN/decoder, where RUN is a run's folder or the name of one under root. Empty:
    random weights."""
    finetune: FineTuneSettings = added(FineTuneSettings(), since="0.2.0")
    """Which of these weights are trained."""
    num_text_tokens: int = added(0, since="0.2.0", ge=0, le=1024)
    """Token states of a caption that the network unet attends to in addition to the embedding; 0: none. Pictures without captions are
    still trained on."""
    text_encoder: str | None = added(None, since="0.2.0")
    """Name of the encoder in embed.tokens whose token states are read; None: the only encoder there."""
    encoding_dim: int = added(1024, since="0.2.0", ge=1)
    """Dimension of one token state."""
    text_drop_prob: float = added(0.5, since="0.2.0", ge=0, lt=1)
    """Probability of training without the caption of a picture, drawn independently of embedding_drop_prob."""
    pseudo_text: PseudoTextName = added("fixed", since="0.2.0")
    """How pseudo text is made. fixed: by pseudo_text_xi. trained: unit(z + r1(z) + exp(r2(z)) eps) with networks that are trained on the
    pictures with captions (Lafite's trainable noise). retrieved: the text embeddings of these pictures that are nearest to z, averaged
    and optimised until they distinguish z from other pictures (Lafite2's idea). The last two also sample from captions' own text
    embeddings."""
    weak: WeakSettings | None = added(None, since="0.2.0")
    """Guide with a weaker network that is also given the embedding (autoguidance, Karras et al. 2024), instead of the network
    without the embedding. None: guide with the network without the embedding."""
    regression: bool = added(False, since="0.2.0")
    """Whether unet and dit also read the latent that ridge regression, fitted on train rows before training, predicts from the image
    embedding: without it a small network learns late where things are in the picture
    (`docs/decisions/0015-regression.md`)."""
    neighbours: int = added(0, since="0.2.0", ge=0, le=16)
    """Number of nearest train pictures whose latents the network also reads; 0: none. The network then copies them: most of its pictures
    are nearer to a neighbour than to the true picture."""
    neighbour_max_cosine: float = added(0.98, since="0.2.0", gt=0, lt=1)
    """Train pictures with a larger cosine are the picture itself or near duplicates, and are not used as neighbours."""

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        part = self.finetune.weights
        if part != "all" and (not self.init_from or self.network != "unet"):
            raise ValueError(
                f"finetune.weights={part} trains some of the weights that init_from names, with network=unet: set init_from and network=unet, or finetune.weights=all"
            )
        return self

    @model_validator(mode="after")
    def _words_fit(self) -> Self:
        if self.num_text_tokens and self.network != "unet":
            raise ValueError(
                f"num_text_tokens={self.num_text_tokens} needs cross-attention, and network={self.network} has none: set network=unet"
            )
        if self.num_text_tokens and self.is_language_free:
            raise ValueError("pseudo text is for a decoder without captions: set num_text_tokens=0")
        return self

    @model_validator(mode="after")
    def _pseudo_text_is_one(self) -> Self:
        if self.pseudo_text != "fixed" and self.pseudo_text_xi > 0:
            raise ValueError(
                f"pseudo_text {self.pseudo_text} takes no pseudo_text_xi: leave it 0, or take fixed"
            )
        return self

    @model_validator(mode="after")
    def _regression_fits(self) -> Self:
        if self.regression and self.network == "mlp":
            raise ValueError(
                "regression adds input planes, and network=mlp has none: set network to unet or dit"
            )
        if self.regression and self.is_language_free:
            raise ValueError("regression is fitted on image embeddings, not on pseudo text: leave it false")
        return self

    @property
    def is_language_free(self) -> bool:
        """Return whether it trains on pseudo text and samples from captions' own text embeddings."""
        return self.pseudo_text != "fixed" or self.pseudo_text_xi > 0


class UpsamplerSettings(DenoiserSettings):
    """A step of the cascade: a small picture and its image embedding -> a larger picture, by diffusion on pixels."""

    network: NetworkName = "unet"
    """unet: convolutions, which are trained on crops if the network has no attention. dit: a transformer on patches of whole pictures."""
    unet: UNetSettings = UNetSettings(widths=(64, 128, 256), layers=2, attention=(), middle_attention=False)
    """Sizes of the network unet."""
    low_side: int = Field(default=64, ge=4, le=2048)
    """Side of the smaller picture, px: the output of the decoder or of the step before."""
    side: int = Field(default=256, ge=8, le=4096)
    """Side of the larger picture, px."""
    crop: int = Field(default=64, ge=0, le=4096)
    """Side of the square crops of the larger picture that are trained on, px; 0: whole pictures."""
    low_noise: float = Field(default=0.3, ge=0, le=1)
    """Largest standard deviation of the noise on the smaller picture in training; the network is conditioned on each row's value."""
    painted_low_noise: float = Field(default=0.1, ge=0, le=1)
    """Standard deviation of that noise in sampling."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance scale; 1: none."""

    @property
    def trained_side(self) -> int:
        """Return the side of the crops that are trained on, px."""
        return self.crop or self.side

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        if self.network == "mlp":
            raise ValueError("an upsampler works on planes: take network unet or dit")
        if self.side <= self.low_side:
            raise ValueError(f"side {self.side} must be larger than low_side {self.low_side}")
        if self.crop > self.side:
            raise ValueError(f"crop {self.crop} must be at most side {self.side}, or 0")
        if self.painted_low_noise > self.low_noise:
            raise ValueError(
                f"painted_low_noise {self.painted_low_noise} must be at most low_noise {self.low_noise}, the largest noise in training"
            )
        return self

    @model_validator(mode="after")
    def _attention_sees_whole_pictures(self) -> Self:
        attends = self.network == "dit" or self.unet.middle_attention or bool(self.unet.attention)
        if attends and self.trained_side != self.side:
            raise ValueError(
                "a network with attention is trained on whole pictures: set crop=0, or unet.attention=[] and unet.middle_attention=false"
            )
        return self


def check_chain(steps: Mapping[str, UpsamplerSettings], side: int, decoder: DecoderSettings) -> None:
    """Check that each step of a cascade enlarges the output of the step before, the first the decoder's of `side` px; ValueError if not."""
    if "second_upsampler" in steps and "upsampler" not in steps:
        raise ValueError("second_upsampler enlarges what upsampler paints, and there is no such section")
    if steps and decoder.pseudo_text != "fixed":
        raise ValueError(
            f"a cascade can be trained only on pseudo text of kind fixed, not decoder.pseudo_text={decoder.pseudo_text}"
        )
    painter, xi = "autoencoder.image_size", decoder.pseudo_text_xi
    for name, settings in steps.items():
        if settings.low_side != side:
            raise ValueError(f"{name}.low_side={settings.low_side} must be {painter}={side}")
        if settings.pseudo_text_xi != xi:
            raise ValueError(
                f"{name}.pseudo_text_xi={settings.pseudo_text_xi} must be decoder.pseudo_text_xi={xi}: both are given one embedding"
            )
        painter, side = f"{name}.side", settings.side
