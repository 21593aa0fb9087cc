"""How a trained run paints, where a request differs from the run's recipe."""

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from corgi.names import SamplerName
from corgi.settings.errors import SettingsError
from corgi.settings.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class PaintSettings(Section):
    """Steps, samplers, guidance and candidates of one request; None: the value of the run's recipe."""

    steps: int | None = Field(default=None, ge=1)
    """Sampler steps of the decoder."""
    sampler: SamplerName | None = None
    """Sampler of the decoder."""
    guidance: float | None = Field(default=None, ge=0)
    """Classifier-free guidance scale of the decoder; 1: none."""
    guidance_interval: tuple[Share, Share] | None = None
    """Shares of T between which the decoder's guidance is used."""
    prior_steps: int | None = Field(default=None, ge=1)
    """Sampler steps of the prior."""
    prior_sampler: SamplerName | None = None
    """Sampler of the prior."""
    prior_guidance: float | None = Field(default=None, ge=0)
    """Classifier-free guidance scale of the prior; 1: none."""
    prior_candidates: int | None = Field(default=None, ge=1, le=64)
    """Image embeddings drawn per picture, of which the one closest to the text is kept."""
    best_of: int = Field(default=1, ge=1, le=64)
    """Pictures painted for each one returned: the one whose CLIP embedding is closest to the caption's."""

    @model_validator(mode="after")
    def _interval_ascends(self) -> Self:
        if self.guidance_interval is not None and self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(f"guidance_interval {self.guidance_interval} must ascend")
        return self


class FinishSettings(Section):
    """What is done to a painted picture before it is saved; nothing by default."""

    autocontrast: bool = False
    """Stretch each channel to the whole range 0 to 255."""
    sharpness: float = Field(default=1.0, ge=0, le=10)
    """Factor of sharpness; 1: unchanged, 0: blurred."""
    enlarge: bool = False
    """Double both sides with a Lanczos filter."""


def painting(**asked: object) -> PaintSettings:
    """Return the settings of a request.

    Raises:
        SettingsError: a value is not allowed; the line names it.

    """
    try:
        return PaintSettings.model_validate(asked)
    except ValidationError as error:
        raise _refused(error) from error


def finishing(**asked: object) -> FinishSettings:
    """Return the settings of what is done to the pictures of a request.

    Raises:
        SettingsError: a value is not allowed; the line names it.

    """
    try:
        return FinishSettings.model_validate(asked)
    except ValidationError as error:
        raise _refused(error) from error


def _refused(error: ValidationError) -> SettingsError:
    """Return the first validation error as one line."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    where = f"{name}={first['input']!r}: " if name else ""
    return SettingsError(f"{where}{first['msg']}; nothing was painted; choose another value")
