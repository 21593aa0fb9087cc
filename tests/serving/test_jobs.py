"""Jobs painted together are the same as alone, and each is handed back what it asked for."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from corgi.serving.jobs import Job, kind_of, paint
from corgi.settings.painting import PaintSettings
from tests.support.painter import Colours, colour

JOBS = st.builds(
    lambda text, seed, n: Job((text,), seed, n), st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 4)
)


@given(jobs=st.lists(JOBS, min_size=1, max_size=5))
def test_law_together_is_as_alone(jobs):
    together = paint(Colours(), jobs)
    alone = [paint(Colours(), [job])[0] for job in jobs]
    assert [bytes_of(one.pictures) for one in together] == [bytes_of(one.pictures) for one in alone]
    assert [len(one.pictures) for one in together] == [job.n for job in jobs]


def bytes_of(pictures: list[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def test_only_captions_in_the_same_manner_are_painted_together():
    plain, same = Job(("a",), 0), Job(("b",), 1)
    others = [
        Job(("a",), 0, painting=PaintSettings(steps=3)),
        Job(("a", "b"), 0),
        Job((Image.new("RGB", (4, 4)),), 0),
    ]
    assert kind_of(plain) == kind_of(same)
    assert len({kind_of(job) for job in (plain, *others)}) == 4


def test_a_mixture_with_all_of_the_second_is_not_refused():
    """The first weight of a mixture is positive."""
    painted = paint(Colours(), [Job(("a", "b"), 0, share=1.0)])[0]
    assert painted.pictures[0].tobytes() == colour("['b', 'a'] [1.0, 0.0]", 0).tobytes()


def test_strips_and_embeddings_are_made_when_asked_for():
    painted = paint(Colours(), [Job(("a",), 0, n=2, strip=True, embed=True)])[0]
    assert [len(strip) for strip in painted.strips] == [3, 3]
    assert painted.embeddings is not None
    assert painted.embeddings.shape == (2, 3)
    assert paint(Colours(), [Job(("a",), 0)])[0].embeddings is None
