"""img2dataset's option names that the command line accepts, where they mean the same as a setting of ours."""

from collections.abc import Sequence

from corgi.settings.errors import SettingsError

IMG2DATASET: dict[str, str] = {
    "url_list": "plan.input",
    "url_col": "plan.url_col",
    "caption_col": "plan.caption_col",
    "number_sample_per_shard": "plan.number_sample_per_shard",
    "verify_hash": "plan.verify_hash",
    "save_additional_columns": "plan.save_additional_columns",
    "image_size": "download.image_size",
    "resize_mode": "download.resize_mode",
    "encode_format": "download.encode_format",
    "encode_quality": "download.encode_quality",
    "min_image_size": "download.min_image_size",
    "max_image_area": "download.max_pixels",
    "max_aspect_ratio": "download.max_aspect_ratio",
    "timeout": "download.timeout_s",
    "retries": "download.retries",
    "thread_count": "download.connections",
    "processes_count": "download.num_actors",
    "user_agent_token": "download.user_agent",
    "disallowed_header_directives": "download.disallowed_header_directives",
    "output_folder": "root",
    "wandb_project": "tracking.project",
}
"""img2dataset's option -> our setting."""
WITHOUT_EQUAL: dict[str, str] = {
    "output_format": "tables are Parquet, and export writes other forms",
    "input_format": "the format of a list is recognised by its name",
    "compute_hash": "the sha256 of the raw bytes is always kept",
    "distributor": "the work runs on Ray",
    "subjob_size": "the work runs on Ray",
    "incremental_mode": "finished shards are always skipped; --force makes them again",
    "max_shard_retry": "--retry-failed requests the rows that failed for the named reasons again",
    "extract_exif": "what is stored carries no metadata",
    "skip_reencode": "what is stored is always encoded anew",
    "disable_all_reencoding": "what is stored is always encoded anew",
    "enable_wandb": "tracking.mode says where metrics go",
    "bbox_col": "faces are not blurred here",
    "oom_shard_count": "shard names have five digits",
    "resize_only_if_bigger": "resize_mode says it",
    "upscale_interpolation": "the decoder chooses it",
    "downscale_interpolation": "the decoder chooses it",
}
"""img2dataset's option -> why Corgi has no such option."""


def with_our_names(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which img2dataset's options are replaced by our settings; everything else is unchanged.

    `--image_size=256`, `--image_size 256` and `image_size=256` become `download.image_size=256`.

    Raises:
        SettingsError: an option of img2dataset has no equivalent here.

    """
    ours: list[str] = []
    left = iter(arguments)
    for argument in left:
        dashed = argument.startswith("--")
        name, equals, value = argument.removeprefix("--").partition("=")
        if name in WITHOUT_EQUAL and (dashed or equals):
            raise SettingsError(
                f"img2dataset's option {name} has no equivalent here: {WITHOUT_EQUAL[name]}; nothing was started; leave it out"
            )
        if name not in IMG2DATASET or not (dashed or equals):
            ours.append(argument)
            continue
        found = value if equals else next(left, None)
        if found is None:
            raise SettingsError(f"--{name} has no value; nothing was started; write --{name}=VALUE")
        ours.append(f"{IMG2DATASET[name]}={found}")
    return ours
