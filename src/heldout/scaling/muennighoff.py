"""Muennighoff: repeated tokens and surplus parameters lose their worth exponentially.

L = E + A / N'^alpha + B / D'^beta, where D' = U + U R_D* (1 - exp(-R_D / R_D*)) counts the U
unique tokens and what R_D = D/U - 1 repetitions are still worth, and N' likewise counts the
parameters U_N that U unique tokens can use and R_N = N/U_N - 1 times more. R_D* says after how many
repetitions most of the worth is gone. D' never falls, so the law cannot show overfitting: it says
nothing sensible beyond a few tens of epochs.
"""

from dataclasses import dataclass

import numpy as np

from heldout.scaling.law import HUGE, Law, Parameter, coefficient, exponent, power, unpack
from heldout.scaling.runs import Numbers, Runs

SOURCE = "Muennighoff et al. 2023, arXiv 2305.16264"
COST = "7 parameters from N, D and U; runs of several epochs are needed"

# ln A, ln B, ln E = 6.255414, 7.3049974, 0.6254804 in the paper's code.
PUBLISHED = {
    "E": float(np.exp(0.6254804)),
    "A": float(np.exp(6.255414)),
    "B": float(np.exp(7.3049974)),
    "alpha": 0.3526596,
    "beta": 0.3526596,
    "R_D": 15.387756,
    "R_N": 5.309743,
}


def worth(unique: Numbers, repetitions: Numbers, half_life: Numbers) -> np.ndarray:
    """Unique units plus what their repetitions are worth: U + U R* (1 - exp(-R / R*))."""
    return unique + unique * half_life * -np.expm1(-repetitions / half_life)


def log_usable_parameters(
    U: Numbers, A: Numbers, B: Numbers, alpha: Numbers, beta: Numbers
) -> np.ndarray:
    """Logarithm of the N that is compute-optimal for U tokens: (U G)^(beta/alpha) G."""
    log_G = np.log(alpha * A / (beta * B)) / (alpha + beta)
    # Kept from underflow: a step of a search far off must not divide by zero.
    return np.maximum((beta / alpha) * (np.log(U) + log_G) + log_G, -HUGE)


def muennighoff_loss(
    N: Numbers,
    D: Numbers,
    U: Numbers,
    E: Numbers,
    A: Numbers,
    B: Numbers,
    alpha: Numbers,
    beta: Numbers,
    R_D: Numbers,
    R_N: Numbers,
) -> np.ndarray:
    """Loss in nats per token; N parameters, D tokens seen, U of them unique."""
    U_N = np.exp(np.minimum(np.log(N), log_usable_parameters(U, A, B, alpha, beta)))
    D_worth = worth(U, np.maximum(D / U - 1, 0), R_D)
    N_worth = worth(U_N, np.maximum(N / U_N - 1, 0), R_N)
    return E + A * power(np.log(N_worth), -alpha) + B * power(np.log(D_worth), -beta)


def muennighoff_gradient(
    N: Numbers,
    D: Numbers,
    U: Numbers,
    E: Numbers,
    A: Numbers,
    B: Numbers,
    alpha: Numbers,
    beta: Numbers,
    R_D: Numbers,
    R_N: Numbers,
) -> np.ndarray:
    """Derivatives to E, A, B, alpha, beta, R_D, R_N along a last dimension."""
    total = alpha + beta
    log_G = np.log(alpha * A / (beta * B)) / total
    log_optimum = log_usable_parameters(U, A, B, alpha, beta)
    U_N = np.exp(np.minimum(np.log(N), log_optimum))
    repeats_D, repeats_N = np.maximum(D / U - 1, 0), np.maximum(N / U_N - 1, 0)
    D_worth, N_worth = worth(U, repeats_D, R_D), worth(U_N, repeats_N, R_N)
    per_A, per_B = power(np.log(N_worth), -alpha), power(np.log(D_worth), -beta)
    slope_N, slope_D = -alpha * A * per_A / N_worth, -beta * B * per_B / D_worth

    # How N' follows U_N, and U_N the other parameters, where U_N is not N itself.
    left_N, left_D = np.exp(-repeats_N / R_N), np.exp(-repeats_D / R_D)
    per_log_U_N = slope_N * U_N * (1 + R_N * (1 - left_N) - left_N * (1 + repeats_N))
    per_log_U_N = np.where(log_optimum < np.log(N), per_log_U_N, 0.0)
    k = 1 + beta / alpha
    U_N_by_alpha = k * (1 / alpha - log_G) / total - beta / alpha**2 * (log_G + np.log(U))
    U_N_by_beta = k * (-1 / beta - log_G) / total + (log_G + np.log(U)) / alpha
    return np.stack(
        [
            np.ones_like(per_A),
            per_A + per_log_U_N * k / total / A,
            per_B - per_log_U_N * k / total / B,
            -A * per_A * np.log(N_worth) + per_log_U_N * U_N_by_alpha,
            -B * per_B * np.log(D_worth) + per_log_U_N * U_N_by_beta,
            slope_D * U * (1 - left_D - left_D * repeats_D / R_D),
            slope_N * U_N * (1 - left_N - left_N * repeats_N / R_N),
        ],
        axis=-1,
    )


@dataclass(frozen=True)
class Muennighoff(Law):
    """L = E + A / N'^alpha + B / D'^beta."""

    PARAMETERS = (
        coefficient("E", "loss", "the floor: loss of an infinite model on infinite data"),
        coefficient("A", "loss * parameters^alpha", "what a small model costs"),
        coefficient("B", "loss * tokens^beta", "what few tokens cost"),
        exponent("alpha", "how fast more parameters help", low=0.02),
        exponent("beta", "how fast more tokens help", low=0.02),
        Parameter("R_D", "repetitions", "how long repeated tokens help", 1e-3, 1e6, (0.5, 200.0)),
        Parameter("R_N", "times", "how long surplus parameters help", 1e-3, 1e6, (0.5, 200.0)),
    )
    FORMULA = "L = E + A/N'^alpha + B/D'^beta, D' = U + U R_D (1 - exp(-(D/U-1)/R_D)), N' likewise"
    KNOWS_REPETITION = True
    NUM_PASSES = 3

    def loss(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return muennighoff_loss(runs.N, runs.D, runs.U, *unpack(values))

    def gradient(self, runs: Runs, values: np.ndarray) -> np.ndarray:
        return muennighoff_gradient(runs.N, runs.D, runs.U, *unpack(values))

    def linear_form(
        self, runs: Runs, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """With U_N from the coefficients of the pass before; all parameters count in the first."""
        _, A, B, alpha, beta, R_D, R_N = unpack(values)
        U_N = np.exp(np.minimum(np.log(runs.N), log_usable_parameters(runs.U, A, B, alpha, beta)))
        D_worth = worth(runs.U, np.maximum(runs.D / runs.U - 1, 0), R_D)
        N_worth = worth(U_N, np.maximum(runs.N / U_N - 1, 0), R_N)
        per_A, per_B = power(np.log(N_worth), -alpha), power(np.log(D_worth), -beta)
        basis = np.stack([np.ones_like(per_A), per_A, per_B], axis=-1)
        shape = basis.shape[:-1]
        return basis, np.broadcast_to(runs.loss, shape), np.broadcast_to(1 / runs.loss, shape)
