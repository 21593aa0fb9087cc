"""Which code made a table."""

import subprocess

from corgi.flow import code


def fresh(monkeypatch, home):
    monkeypatch.setattr(code, "HOME", home)
    return code.code_digest.__wrapped__, code.git_commit.__wrapped__


def test_every_source_file_changes_the_digest(monkeypatch, tmp_path):
    digest, _ = fresh(monkeypatch, tmp_path)
    seen = {digest()}
    for name in ("corgi/a.py", "corgi/b/c.py", "pipelines/full.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        for text in ("x = 1\n", "x = 2\n"):
            (tmp_path / name).write_text(text)
            seen.add(digest())
    assert len(seen) == 7
    (tmp_path / "corgi" / "a.py").rename(tmp_path / "corgi" / "d.py")
    assert digest() not in seen


def test_other_files_do_not(monkeypatch, tmp_path):
    digest, _ = fresh(monkeypatch, tmp_path)
    before = digest()
    (tmp_path / "README.md").write_text("words")
    assert digest() == before


def test_the_commit_is_told_and_local_changes_are_marked(monkeypatch, tmp_path):
    _, commit = fresh(monkeypatch, tmp_path)
    assert commit() is None
    (tmp_path / "a").write_text("1")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for line in (["init", "-q"], ["add", "a"], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *line], cwd=tmp_path, check=True, capture_output=True)
    clean = commit()
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert commit() == f"{clean} with local changes"
