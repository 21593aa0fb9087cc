"""What a command line may ask: wrong requests are one line before any model is loaded."""

from pathlib import Path

import pytest

from corgi.inference.request import request_of
from corgi.settings.errors import CorgiError
from corgi.settings.painting import FinishSettings, PaintSettings


def request(folder: Path, *arguments: str):
    return request_of(["runs/absent", *arguments, "--out", str(folder / "out")])


def test_what_is_not_given_is_as_the_recipe_says(tmp_path: Path) -> None:
    found = request(tmp_path, "a fox", "a fox", "b")
    assert found.captions == ("a fox", "b")
    assert (found.asked, found.finish) == (PaintSettings(), FinishSettings())


def test_every_setting_has_a_flag(tmp_path: Path) -> None:
    asked = PaintSettings(
        steps=3, sampler="dpm++", guidance=2.5, guidance_interval=(0.1, 0.9), prior_steps=2, prior_sampler="ddim",
        prior_guidance=1.5, prior_candidates=4, best_of=5,
    )  # fmt: skip
    finish = FinishSettings(autocontrast=True, sharpness=2.0, enlarge=True)
    flags: list[str] = []
    for name, value in {**asked.model_dump(), **finish.model_dump()}.items():
        values = value if isinstance(value, tuple) else [] if value is True else [value]
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    found = request(tmp_path, "a fox", *flags)
    assert (found.asked, found.finish) == (asked, finish)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no caption was given"),
        (["a fox", ""], "caption 2 has no words"),
        (["a fox", "--steps", "0"], "steps=0"),
        (["a fox", "--guidance-interval", "0.9", "0.1"], "must ascend"),
        (["--vary", "absent.png"], "absent.png is not a file"),
        (["--mix", "a fox", "@absent.png"], "absent.png is not a file"),
        (["--mix", "a fox", " "], "caption 2 has no words"),
        (["--prompts", "absent.csv"], "absent.csv cannot be read"),
        (["--vary", __file__, "--n", "0"], "n=0"),
    ],
)
def test_a_wrong_request_is_one_line_and_makes_no_folder(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    with pytest.raises(CorgiError) as caught:
        request(tmp_path, *arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_nothing_but_bad_rows_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("caption\n \n")
    with pytest.raises(CorgiError, match="no row that can be painted"):
        request(tmp_path, "--prompts", str(tmp_path / "p.csv"))
