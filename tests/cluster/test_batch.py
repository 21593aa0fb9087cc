"""The Slurm script and the SkyPilot task: their shell is parsed, their steps run against programs that only note their arguments."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.versions import CLUSTER, REPOSITORY

SLURM = CLUSTER / "slurm.sh"
NOTE = '#!/usr/bin/env bash\nprintf "%s" "${0##*/}" >> "$CALLS"\nprintf " %q" "$@" >> "$CALLS"\necho " # RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_ADDRESS=${RAY_ADDRESS-}" >> "$CALLS"\n'
MANY_NODES = "#!/usr/bin/env bash\nfor n in {1..20000}; do echo node$n; done\n"
"""More than a pipe holds: a reader that leaves early would end the script."""


def task() -> dict[str, Any]:
    """Read the SkyPilot task."""
    return yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())


def calls_of(script: str, tmp_path: Path, environment: dict[str, str], programs: dict[str, str]) -> list[str]:
    """Run a script whose programs are doubles; return what they were called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for name in ("bash", "head", "cat", "sleep"):
        (folder / name).symlink_to(shutil.which(name) or name)
    calls = tmp_path / "calls"
    environment = {"PATH": str(folder), "CALLS": str(calls), "HOME": str(tmp_path), **environment}
    subprocess.run([folder / "bash", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=60)
    return calls.read_text().splitlines() if calls.exists() else []


def test_slurm_directives_come_before_any_command_and_keep_a_node_for_one_job() -> None:
    lines = SLURM.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1]), "Slurm reads none after the first command"
    options = [line.removeprefix("#SBATCH --").partition("=") for line in lines if "#SBATCH" in line]
    given = {name: value for name, _, value in options}
    assert given["ntasks-per-node"] == "1", "one Ray for each node"
    assert "exclusive" in given, (
        "symmetric-run ends with `ray stop`, which ends every Ray of the user on the node"
    )
    assert {"nodes", "time"} <= given.keys()
    assert os.access(SLURM, os.X_OK)


def test_slurm_script_runs_our_one_command_on_every_node_of_the_job(tmp_path: Path) -> None:
    environment = {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "a1",
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_CPUS_ON_NODE": "32",
    }
    script = SLURM.read_text().replace("#!/usr/bin/env bash\n", 'set -- r.yaml "plan.input=/a b.parquet"\n')
    (call,) = calls_of(
        script,
        tmp_path,
        environment,
        {"srun": NOTE, "scontrol": MANY_NODES},
    )
    words = shlex.split(call, comments=True)
    assert words[:3] == ["srun", "--kill-on-bad-exit=1", "ray"]
    assert words[words.index("--address") + 1] == "node1:23456"
    assert words[words.index("--min-nodes") + 1] == "4"
    assert words[words.index("--") + 1 :] == [
        "python",
        "pipelines/full.py",
        "r.yaml",
        "plan.input=/a b.parquet",
    ]
    assert "RAY_AUTH_MODE=token RAY_ADDRESS=node1:23456" in call


def test_symmetric_run_takes_the_options_of_the_script() -> None:
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    text = SLURM.read_text().replace("\\\n", " ")
    words = shlex.split(text[text.index("ray symmetric-run") :].splitlines()[0])
    given = words[2 : words.index("--")]
    assert curate_and_validate_ray_start_args(given) == ["--num-cpus", "$SLURM_CPUS_ON_NODE"]


@pytest.mark.parametrize(("rank", "programs"), [("0", ["ray", "python"]), ("1", ["ray"])])
def test_skypilot_task_runs_our_one_command_on_the_first_machine_only(
    rank: str, programs: list[str], tmp_path: Path
) -> None:
    given = task()
    script = given["run"].replace("source .venv/bin/activate", "")
    environment = {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NODE_RANK": rank,
        **{name: str(value) for name, value in given["envs"].items()},
    }
    calls = calls_of(script, tmp_path, environment, {"ray": NOTE, "python": NOTE})
    assert [call.split()[0] for call in calls] == programs
    assert all("RAY_AUTH_MODE=token" in call for call in calls)
    assert "10.0.0.1" in calls[0]
    if rank == "0":
        words = shlex.split(calls[1], comments=True)
        assert words[1:4] == ["pipelines/full.py", given["envs"]["RECIPE"], f"root={given['envs']['ROOT']}"]


def test_skypilot_task_leaves_skypilots_own_ray_alone_and_holds_no_secret() -> None:
    given = task()
    assert "ray stop" not in given["run"]
    assert "--port=6379" in given["run"], "SkyPilot's own Ray has 6380"
    assert "--dashboard-host=127.0.0.1" in given["run"]
    assert set(given["secrets"].values()) == {None}
    assert not {name for name in given["envs"] if re.search("KEY|TOKEN|SECRET", name)}
    assert (REPOSITORY / given["envs"]["RECIPE"]).is_file()
    assert "-c requirements.lock" in given["setup"]


def test_shell_of_both_is_well_formed() -> None:
    for script in (SLURM.read_text(), task()["setup"], task()["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)
