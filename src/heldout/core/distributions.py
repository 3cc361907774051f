"""Quantiles and tails of distributions. scipy is imported where it is used: --help loads none."""


def student_t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t at any positive, also fractional, number of degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def student_t_p_value(distance: float, freedom: float) -> float:
    """Two-sided: how often Student's t lies ``distance`` standard errors or more from 0."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(distance)))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def normal_p_value(distance: float) -> float:
    """Two-sided: how often a standard normal lies ``distance`` or more from 0."""
    from scipy.special import ndtr

    return float(2 * ndtr(-abs(distance)))


def exact_bounds(
    successes: float, trials: float, level: float, ease: float = 0.0
) -> tuple[float, float]:
    """Ends of Clopper and Pearson's interval of a share (1934); the numbers need not be whole.

    ``ease`` leads from there to Jeffreys' interval, at 0.5, which covers on average only.
    """
    from scipy.special import betaincinv

    tail, failures = (1 - level) / 2, trials - successes
    near_zero = 1e-9 * trials
    low, high = 0.0, 1.0
    if successes > near_zero:
        low = float(betaincinv(successes + ease, failures + 1 - ease, tail))
    if failures > near_zero:
        high = float(betaincinv(successes + 1 - ease, failures + ease, 1 - tail))
    return low, high
