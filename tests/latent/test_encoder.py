"""Steps as latent states."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.latent import LatentStates, step_features

TOKENS = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0], [2.0, 2.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)


def test_features_are_the_mean_and_the_largest_eigenvalues_of_the_gram_matrix():
    features = step_features(TOKENS, 2)
    torch.testing.assert_close(features[:3], TOKENS.mean(0))
    gram = torch.linalg.eigvalsh(TOKENS @ TOKENS.T / 4).flip(0)
    torch.testing.assert_close(features[3:], gram[:2])


def test_features_do_not_depend_on_the_order_of_tokens_and_a_short_step_is_padded():
    torch.testing.assert_close(step_features(TOKENS[[2, 0, 3, 1]]), step_features(TOKENS))
    torch.testing.assert_close(step_features(TOKENS[:1], 4)[4:], torch.zeros(3, dtype=torch.float64))


def test_the_posterior_is_a_softmax_of_squared_distances():
    states = LatentStates(torch.tensor([[0.0], [2.0]]), temperature=2.0)
    found = states.posterior(torch.tensor([[0.5]]))
    expected = torch.softmax(torch.tensor([[-0.25 / 2, -2.25 / 2]], dtype=torch.float64), -1)
    torch.testing.assert_close(found, expected)
    assert states.nearest(torch.tensor([[0.5], [1.7]])).tolist() == [0, 1]


def test_clusters_that_are_far_apart_are_found_whatever_the_seed():
    features = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    for seed in range(3):
        found = LatentStates.fit(features, 3, temperature=0.1, seed=seed)
        assert sorted(round(float(center), 2) for center in found.centers) == [0.05, 5.05, 9.05]
        assert found.nearest(features).unique().numel() == 3


def test_fewer_steps_than_states_make_fewer_states_and_a_warning():
    with pytest.warns(UserWarning, match="^latent states: 2 different steps make 2 states, not 16$"):
        found = LatentStates.fit(torch.tensor([[0.0], [1.0], [0.0]]))
    assert len(found.centers) == 2


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: LatentStates(torch.zeros(2, 1), 0.0), r"latent_states\.temperature = 0\.0: must be above 0"),
        (lambda: LatentStates(torch.zeros(0, 1)), r"latent_states\.centers of shape \(0, 1\)"),
        (lambda: LatentStates.fit(torch.zeros(0, 1)), "16 states of 0 steps"),
        (lambda: step_features(torch.zeros(0, 3)), "at least one token"),
        (lambda: step_features(TOKENS, -1), "eigenvalues = -1"),
    ],
)
def test_what_cannot_be_is_refused(call, error):
    with pytest.raises(InputError, match=error):
        call()
