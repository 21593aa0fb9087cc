"""The discriminator of patches: what a score sees, and losses that end where they should."""

import torch

from corgi.models.adversary import PatchDiscriminator, Verdicts, discriminator_loss, generator_loss


def test_a_patchs_score_knows_its_neighbourhood_and_not_the_other_end() -> None:
    torch.manual_seed(0)
    judge, pictures = PatchDiscriminator((8,)), torch.rand(1, 3, 32, 32)
    touched = pictures.clone()
    touched[..., :4, :4] = 0
    change = (judge(touched) - judge(pictures))[0, 0].abs()
    assert change.shape == (16, 16)
    assert bool(change[0, 0] > 0)
    assert not bool(change[8:, 8:].any())


def test_law_the_hinge_is_zero_beyond_its_margin_and_one_for_a_judge_that_says_nothing() -> None:
    ones = torch.ones(2, 1, 3, 3)
    assert float(discriminator_loss(Verdicts(ones, ones, -ones))) == 0
    assert float(discriminator_loss(Verdicts(ones, 0 * ones, 0 * ones))) == 1
    assert float(discriminator_loss(Verdicts(ones, -ones, ones))) == 2
    assert float(generator_loss(Verdicts(3 * ones, ones, ones))) == -3
