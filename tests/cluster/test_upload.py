"""A submitted job is given the code, the recipes and the lock of the clone, and not much more."""

from pathlib import Path

from tests.support.upload import MAX_UPLOAD_BYTES, packed

HOME = Path(__file__).resolve().parents[2]
NEEDED = {
    "pyproject.toml",
    "requirements.lock",
    "pipelines/full.py",
    "pipelines/recipes/smoke.yaml",
    "cluster/aws.yaml",
}


def test_what_a_job_needs_is_uploaded_and_pictures_of_the_docs_are_not(tmp_path: Path) -> None:
    archive = tmp_path / "clone.zip"
    names = packed(HOME, archive)
    code = {
        str(path.relative_to(HOME))
        for path in (HOME / "corgi").rglob("*")
        if "__pycache__" not in path.parts and path.is_file()
    }
    assert set(names) >= NEEDED | code
    assert not [
        name for name in names if name.split("/")[0] in {"docs", "notebooks", "runs", ".git", ".venv"}
    ]
    assert archive.stat().st_size < MAX_UPLOAD_BYTES
