"""An autoencoder of diffusers, loaded from a local folder or from the hub; one that cannot be used raises a one-line InputError."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers has no types

from collections.abc import Mapping

from corgi.models.pretrained_codec import CLASSES, PretrainedCodec
from corgi.names import AutoencoderConfig
from corgi.settings.errors import InputError
from corgi.settings.models import PretrainedSettings

_LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)
_SAFE = "tables are safe; name another one in autoencoder.pretrained.path"


def read_pretrained(
    settings: PretrainedSettings, image_size: int
) -> tuple[PretrainedCodec, Mapping[str, object]]:
    """Return the codec and its config.

    Raises:
        InputError: it cannot be read, is of an unsupported class, has no scaling factor, or does not accept pictures of that side.

    """
    config = _config(settings)
    kind = CLASSES[config["_class_name"]]
    try:
        model, info = kind.from_pretrained(
            settings.path,
            subfolder=settings.subfolder or None,
            revision=settings.revision,
            output_loading_info=True,
            low_cpu_mem_usage=False,  # with accelerate installed the default would load in a different way
        )
    except _LOAD_ERRORS as error:
        raise InputError(
            f"{settings.path}: the weights of {config['_class_name']} cannot be read: {_one_line(error)}; {_SAFE}"
        ) from error
    if info["missing_keys"]:
        raise InputError(
            f"{settings.path}: {len(info['missing_keys'])} weights of {config['_class_name']} are missing, the first {info['missing_keys'][0]}; {_SAFE}"
        )
    codec = PretrainedCodec(model, config)
    try:
        codec.latent_shape(image_size)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{settings.path}: {config['_class_name']} does not accept pictures of autoencoder.image_size={image_size}: {_one_line(error)}; tables are safe; name another autoencoder.pretrained.path or another image_size"
        ) from error
    return codec, config


def _told(config: AutoencoderConfig, settings: PretrainedSettings) -> AutoencoderConfig:
    """Return the config with the changes that the settings make to it."""
    return config if settings.quantise else {**config, "quantise": False}


def _config(settings: PretrainedSettings) -> AutoencoderConfig:
    """Return the contents of config.json after checking them."""
    folder = f"{settings.path}/{settings.subfolder}".rstrip("/")
    try:
        config: AutoencoderConfig = CLASSES["AutoencoderKL"].load_config(
            settings.path, subfolder=settings.subfolder or None, revision=settings.revision
        )
    except _LOAD_ERRORS as error:
        raise InputError(
            f"{folder}: no config.json of an autoencoder can be read: {_one_line(error)}; {_SAFE}"
        ) from error
    if config.get("_class_name") not in CLASSES:
        raise InputError(
            f"{folder} contains a {config.get('_class_name')}, not one of {', '.join(CLASSES)}; tables are safe; name another folder, or the subfolder of a pipeline's autoencoder (vae, movq) in autoencoder.pretrained.subfolder"
        )
    if not config.get("scaling_factor"):
        raise InputError(
            f"{folder}: config.json has no scaling_factor, so the scale of its latents is not known; tables are safe; add the scaling_factor that it was trained with"
        )
    channels = {config.get("in_channels", 3), config.get("out_channels", 3)}
    if channels != {3}:
        raise InputError(
            f"{folder}: the autoencoder has {next(n for n in channels if n != 3)} channels, but pictures have 3; {_SAFE}"
        )
    return _told(config, settings)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
