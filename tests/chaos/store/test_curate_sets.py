"""The verdict over parts is that of all rows in memory, row by row: on a million random rows and on the emojis of the demo."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import file_name, rasterise
from corgi.imaging.decode import phash_of
from corgi.settings.clip import CurateSettings
from tests.curation.test_judge import RULES, judged, rows
from tests.support import whole_set_curation as in_memory

pytestmark = pytest.mark.usefixtures("in_process")
NUM_PICTURES = 3_000
SETS = {"exact": {}, "perceptual": {"perceptual_distance": 4}, "all": RULES["all"]}


def emojis(folder: Path) -> in_memory.Rows:
    """Return the rows of drawings, hashed as download hashes them; domains are styles, scores are drawn."""
    pictures = subset(packaged().pictures, NUM_PICTURES)
    rasterise(pictures, folder)
    files = [folder / file_name(picture.id) for picture in pictures]
    found = rows(0, len(files) // 50 * 50)
    files, styles = files[: len(found.uid)], sorted({picture.style.name for picture in pictures})
    digests = [hashlib.sha256(path.read_bytes()).digest()[:16] for path in files]
    return replace(
        found,
        sha256=np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2),
        phash=np.array([int(phash_of(Image.open(path)), 16) for path in files], np.uint64),
        has_phash=np.ones(len(files), bool),
        domain=np.array([styles.index(picture.style.name) for picture in pictures[: len(files)]], np.int64),
        domains=styles,
    )


@pytest.fixture(scope="module", params=["a million random rows", "the emojis of the demo"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> in_memory.Rows:
    if request.param == "a million random rows":
        return rows(7, 10**6)
    return emojis(tmp_path_factory.mktemp("emojis"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SETS)
def test_law_the_verdict_is_that_of_all_rows_in_memory(found: in_memory.Rows, name: str) -> None:
    told = SETS[name] | ({"max_domain_share": 0.6} if len(found.domains) < 10 and name == "all" else {})
    settings = CurateSettings.model_validate(told)
    expected = in_memory.judge(found, settings)
    assert (expected.reason < 0).any()
    for num_parts in (1, 4, 64):
        reasons, _ = judged(found, settings, num_parts)
        np.testing.assert_array_equal(reasons, expected.reason)
    if name != "exact":
        assert (expected.reason >= 0).any()
