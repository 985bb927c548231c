"""When a situation has changed: successor features of a linear auto-encoder's code, and what it cannot reconstruct."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

RIDGE = 1e-3
"""Added to the diagonal of what successor features are solved from, as a share of the number of observations."""


@dataclass(frozen=True, eq=False)
class Situations:
    """Observations as codes, and what codes are to come: ``psi(o) = E[sum_k discount^k code(o_{t+k})]``.

    The auto-encoder is linear, so its best weights are principal components and nothing has to be trained by steps;
    ``psi`` is linear in the code and solved from pairs of observations that follow each other (least squares temporal
    differences). arXiv 2408.11416 does not print its networks: this is a reconstruction.

    center [features], basis [features, codes]: of the code ``(o - center) basis``.  weights [codes + 1, codes]: of
    ``psi`` in the code and 1.  spread: root mean square distance of ``psi`` from its mean.  usual: the reconstruction
    error that 95 in 100 observations stay below.
    """

    center: Float[np.ndarray, " features"]
    basis: Float[np.ndarray, "features codes"]
    weights: Float[np.ndarray, "codes_and_one codes"]
    spread: float
    usual: float

    @staticmethod
    def fit(
        before: Float[np.ndarray, "pairs features"],
        after: Float[np.ndarray, "pairs features"],
        codes: int = 8,
        discount: float = 0.9,
        share: float = 0.95,
    ) -> Situations:
        """From observations and those that followed them.

        codes: numbers in a code, at most the features there are.  discount: of successor features, in [0, 1).
        share: of observations that are not novel.
        """
        center = before.mean(0)
        basis = np.linalg.svd(before - center, full_matrices=False)[2][:codes].T
        code, following = ((seen - center) @ basis for seen in (before, after))
        read, read_next = (np.concatenate([one, np.ones((len(one), 1))], 1) for one in (code, following))
        matrix = read.T @ (read - discount * read_next) + RIDGE * len(read) * np.eye(read.shape[1])
        weights = np.linalg.solve(matrix, read.T @ code)
        features = read @ weights
        spread = float(np.sqrt(((features - features.mean(0)) ** 2).sum(1).mean()))
        error = ((before - center - code @ basis.T) ** 2).sum(1)
        return Situations(center, basis, weights, spread, float(np.quantile(error, share)))

    @property
    def codes(self) -> int:
        """Numbers in a code, and in what is to come."""
        return int(self.basis.shape[1])

    def successors(self, seen: Float[np.ndarray, "*rows features"]) -> Float[np.ndarray, "*rows codes"]:
        """``psi`` of observations."""
        coded: np.ndarray = (seen - self.center) @ self.basis
        to_come: np.ndarray = coded @ self.weights[:-1] + self.weights[-1]
        return to_come

    def changed(
        self, seen: Float[np.ndarray, "*rows features"], mark: Float[np.ndarray, "*rows codes"], kappa: float
    ) -> Bool[np.ndarray, "*rows"]:
        """Where ``|psi(o) - mark| > kappa spread``, or the reconstruction error is above the usual one."""
        off = seen - self.center
        error = ((off - (off @ self.basis) @ self.basis.T) ** 2).sum(-1)
        moved = np.sqrt(((self.successors(seen) - mark) ** 2).sum(-1))
        # Errors that are nothing but rounding are not novel.
        novel = error > max(self.usual, 1e-9 * float((self.center**2).sum() + 1))
        return np.asarray((moved > kappa * self.spread) | novel)
