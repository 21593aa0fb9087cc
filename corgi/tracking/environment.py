"""W&B's own environment variables, settings files and keys on this machine, read without importing wandb."""

import configparser
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from corgi.settings.errors import SettingsError
from corgi.settings.training import TrackingSettings

Mode = Literal["online", "offline", "disabled"]
_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""W&B's own servers: a netrc entry for one of them is used if no other server is named."""
_MODES: dict[str, Literal["auto", "offline", "disabled"]] = {
    "online": "auto",
    "run": "auto",
    "shared": "auto",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""W&B's modes and the corresponding modes of Corgi; online needs a key, for which auto checks."""


def with_environment(settings: TrackingSettings) -> TrackingSettings:
    """Return the settings, with values that the recipe does not set taken from W&B's environment.

    It is applied first on the driver and then on a node, so the driver's environment has precedence.

    Raises:
        SettingsError: WANDB_MODE is none of W&B's modes.

    """
    said = _said()
    tags = tuple(tag.strip() for tag in said.get("tags", "").split(",") if tag.strip())
    known = {
        "project": said.get("project"),
        "entity": said.get("entity"),
        "group": said.get("run_group"),
        "tags": tags,
        "server": said.get("base_url"),
    }
    filled = {name: value for name, value in known.items() if value and name not in settings.model_fields_set}
    if settings.mode == "auto":
        filled["mode"] = _mode_said(said.get("mode", "online"))
    return settings.model_copy(update=filled)


def mode_here(settings: TrackingSettings) -> Mode:
    """Return the mode of a run on this machine; without a key, auto means offline."""
    settings = with_environment(settings)
    if settings.mode != "auto":
        return settings.mode
    return "online" if _has_key(settings.server) else "offline"


def _mode_said(mode: str) -> Literal["auto", "offline", "disabled"]:
    if mode not in _MODES:
        raise SettingsError(
            f"WANDB_MODE={mode!r} is not a mode of W&B; nothing was sent; set it to online, offline or disabled"
        )
    return _MODES[mode]


def _said() -> Mapping[str, str]:
    """Return W&B's settings by its own names; variables override the folder's file, which overrides the user's file."""
    config = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb")
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read(
            [config.expanduser() / "settings", Path(os.environ.get("WANDB_DIR") or ".", "wandb/settings")]
        )
    except (configparser.Error, UnicodeDecodeError):
        files.clear()  # W&B also treats a broken settings file as empty
    stored = dict(files["default"]) if files.has_section("default") else {}
    variables = {
        name.removeprefix("WANDB_").lower(): value
        for name, value in os.environ.items()
        if name.startswith("WANDB_") and value
    }
    return {**stored, **variables}


def _has_key(server: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    hosts = (urlsplit(server).netloc,) if server else _HOSTS
    try:
        entries = netrc.netrc(str(path))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(entries.authenticators(host) is not None for host in hosts)
