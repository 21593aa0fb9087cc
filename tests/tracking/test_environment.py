"""W&B's own variables hold for `auto`, and nothing leaves the machine when they say so."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corgi.settings.errors import SettingsError
from corgi.settings.training import TrackingSettings
from corgi.tracking.environment import mode_here, with_environment
from tests.support.smoke_run import KEY
from tests.support.wandb_server import wandb_server

pytestmark = pytest.mark.slow

AUTO = TrackingSettings()
TRACK = """
import sys
from pathlib import Path
from corgi.settings.training import TrackingSettings
from corgi.tracking.tracked_run import TrackedRun
from corgi.tracking.tracker import Tracker

tracker = Tracker(TrackedRun("tiny", Path(sys.argv[1]), "tests", TrackingSettings(), {}), 0)
for step in (1, 2):
    tracker.log(step, {"loss": 0.5})
tracker.commit()
sys.stdin.readline()
tracker.finish()
"""


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what W&B's environment says here."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        (None, "online"),
        ("", "online"),
        ("online", "online"),
        ("run", "online"),
        ("offline", "offline"),
        ("dryrun", "offline"),
        ("disabled", "disabled"),
    ],
)
def test_auto_is_what_wandb_mode_says_even_where_a_key_is_set(
    monkeypatch: pytest.MonkeyPatch, said: str | None, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    assert mode_here(AUTO) == mode
    for other in ("online", "offline", "disabled"):
        assert mode_here(TrackingSettings.model_validate({"mode": other})) == other


def test_without_a_key_auto_is_offline_and_never_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mode_here(AUTO) == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode_here(AUTO) == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password canary\n")
    assert mode_here(AUTO) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example:8080")
    assert mode_here(AUTO) == "offline", "that key is not this server's"
    (tmp_path / "netrc").write_text("machine wandb.example:8080 login user password canary\n")
    assert mode_here(AUTO) == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode_here(AUTO) == "online"


def test_a_mode_that_wandb_does_not_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(SettingsError, match="WANDB_MODE='of' is not a mode of W&B; nothing was sent"):
        mode_here(AUTO)


def test_what_the_recipe_leaves_open_is_wandbs_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "WANDB_PROJECT": "birds",
        "WANDB_ENTITY": "team",
        "WANDB_TAGS": "one, two",
        "WANDB_RUN_GROUP": "night",
        "WANDB_BASE_URL": "http://127.0.0.1:1",
        "WANDB_MODE": "dryrun",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    filled = with_environment(AUTO)
    assert filled == TrackingSettings(
        project="birds",
        entity="team",
        tags=("one", "two"),
        group="night",
        server="http://127.0.0.1:1",
        mode="offline",
    )
    for name in said:
        monkeypatch.setenv(name, "offline" if name == "WANDB_MODE" else "other")
    assert with_environment(filled) == filled, "the driver's environment comes before a node's"
    named = TrackingSettings(project="corgi", mode="online")
    assert with_environment(named).project == "corgi"
    assert with_environment(named).mode == "online"


def test_the_settings_file_of_wandb_offline_holds_and_variables_come_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings").write_text("[default]\nmode = disabled\nproject = file\n")
    assert mode_here(AUTO) == "disabled"
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert mode_here(AUTO) == "offline"
    assert with_environment(AUTO).project == "file"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode_here(AUTO) == "online"
    (tmp_path / "wandb" / "settings").write_text("no section")
    assert mode_here(AUTO) == "online"


@pytest.mark.parametrize("mode", [None, "offline", "dryrun", "disabled"])
def test_nothing_leaves_the_machine_when_wandbs_variables_say_so(tmp_path: Path, mode: str | None) -> None:
    """A key is set, and every address that W&B could contact is a server that listens."""
    with wandb_server(0.0) as heard:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), heard.address)
        tracked = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": heard.address, **proxies}
        environment = {**os.environ, **tracked, **({"WANDB_MODE": mode} if mode else {})}
        command = [sys.executable, "-c", TRACK, str(tmp_path / "run")]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        while mode is None and not heard.paths and process.poll() is None:
            time.sleep(0.05)
        process.communicate(b"\n", timeout=120)
        assert process.returncode == 0
    assert bool(heard.paths) == (mode is None), heard.paths
    offline = list((tmp_path / "run").glob("wandb/*/wandb/offline-run-*"))
    assert bool(offline) == (mode in ("offline", "dryrun"))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
