"""Steps of a Dockerfile are read as docker reads them, as far as the cluster's file goes."""

from pathlib import Path

import pytest

from tests.support.dockerfile import steps


def test_arguments_variables_folders_and_users_hold_from_where_they_are_set(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(
        '# one\nFROM x\nARG SDK=""\nARG ID=7\nRUN a \\\n    # about b\n    && b "${ID}"\nWORKDIR /opt\nENV A=1 \\\n    B="two words"\nUSER corgi\nCMD ["bash"]\n'
    )
    found = list(steps(path, {"SDK": "boto3"}))
    assert [step.kind for step in found] == ["FROM", "ARG", "ARG", "RUN", "WORKDIR", "ENV", "USER", "CMD"]
    run, last = found[3], found[-1]
    assert run.text == 'a && b "${ID}"'
    assert (run.folder, run.user, run.variables) == ("/", "root", {"SDK": "boto3", "ID": "7"})
    assert (last.folder, last.user) == ("/opt", "corgi")
    assert last.variables == {"SDK": "boto3", "ID": "7", "A": "1", "B": "two words"}


def test_what_is_not_known_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\nHEALTHCHECK NONE\n")
    with pytest.raises(ValueError, match="HEALTHCHECK"):
        list(steps(tmp_path / "Dockerfile"))
