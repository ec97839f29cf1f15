"""What is believed of a reward that is linear in some features, and how sure it is. Knows numbers only.

Bayesian linear regression with unknown noise (normal-inverse-gamma; Bishop, Pattern Recognition and Machine Learning,
2006, ch. 3.3 and 2.3.6): y = w·x + noise, noise variance σ² ~ InverseGamma(a, b), w | σ² ~ N(m, σ² Λ⁻¹). It is exact
after every sample, needs no learning rate, and finds the scale of the noise itself.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, model_validator

Vector = NDArray[np.float64]


class Posterior(BaseModel):
    """Sums over the samples seen, the prior included.

    Attributes:
        precision: Λ, features × features.
        moment: Λ m.
        squares: 2 b + mᵀ Λ m.
        samples: How many have been seen; a is 1 + samples / 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: list[list[FiniteFloat]]
    moment: list[FiniteFloat]
    squares: FiniteFloat
    samples: NonNegativeInt = 0

    @classmethod
    def prior(cls, *, mean: Vector, precision: Vector, noise: float) -> Self:
        """Before any sample.

        Args:
            mean: m, (features,).
            precision: Diagonal of Λ, (features,): 1 is as good as one sample.
            noise: σ that is expected, in units of the reward.
        """
        moment = precision * mean
        squares = 2 * noise**2 + float(mean @ moment)
        return cls(precision=np.diag(precision).tolist(), moment=moment.tolist(), squares=squares)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        size = len(self.moment)
        if [len(row) for row in self.precision] != [size] * size:
            raise ValueError(f"The precision must be a square over {size} features.")
        matrix = np.array(self.precision)
        if not np.array_equal(matrix, matrix.T):
            raise ValueError("The precision must be symmetric.")
        with np.errstate(over="ignore", invalid="ignore"):
            np.linalg.cholesky(matrix)  # a ValueError, too, where it is not positive definite
            scale = self._scale()
        # Also false where numbers are so large that they overflow.
        if not 0 < scale < np.inf:
            raise ValueError("The squares do not go with the moment.")
        return self

    def seen(self, x: Vector, y: float) -> Self:
        """After another sample: features (features,), reward."""
        return self.model_copy(
            update={
                "precision": (np.array(self.precision) + np.outer(x, x)).tolist(),
                "moment": (np.array(self.moment) + y * x).tolist(),
                "squares": self.squares + y * y,
                "samples": self.samples + 1,
            }
        )

    def mean(self) -> Vector:
        """m, (features,)."""
        mean: Vector = np.linalg.solve(np.array(self.precision), np.array(self.moment))
        return mean

    def draw(self, generator: np.random.Generator) -> Vector:
        """One w that could be the true one, (features,)."""
        variance = self._scale() / generator.gamma(1 + self.samples / 2)
        # Λ = L Lᵀ, so that L⁻ᵀ z has the covariance Λ⁻¹.
        lower = np.linalg.cholesky(np.array(self.precision))
        drawn: Vector = self.mean() + np.sqrt(variance) * np.linalg.solve(
            lower.T, generator.standard_normal(len(lower))
        )
        return drawn

    def _scale(self) -> float:
        """The b of the noise: (squares − mᵀ Λ m) / 2."""
        return (self.squares - float(self.mean() @ np.array(self.moment))) / 2
