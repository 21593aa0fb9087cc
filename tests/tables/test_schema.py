"""The one list of reasons, and columns that hold what they say."""

import numpy as np
import pyarrow as pa

from corgi.tables.schema import Reason, image_embeddings, latents, vector


def test_every_reason_is_read_back_from_what_tables_store_and_has_a_text_of_its_own() -> None:
    assert [Reason(reason.value) for reason in Reason] == list(Reason)
    assert len({reason.text for reason in Reason}) == len(Reason)
    assert all(reason.value == reason.name.lower() for reason in Reason)


def test_a_vector_is_stored_as_the_nearest_half_floats() -> None:
    values = np.random.default_rng(0).normal(size=(5, 8))
    stored = pa.array(values.astype(np.float16).tolist(), vector(8))
    np.testing.assert_array_equal(np.stack(stored.to_pylist()), values.astype(np.float16))
    assert latents(8).field("latent").type == image_embeddings({"own": 8}).field("own/image").type
