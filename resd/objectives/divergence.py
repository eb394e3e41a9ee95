"""f-divergences between a student p and a teacher q, one registered function each (paper Eq. 1 and appendix A).

Every function gives the value p f(q / p) of each bucket, for a convex f with f(1) = 0, and sums to a divergence. It
works on log-probabilities, which must be finite (`distill` floors them). The teacher may be clipped and then does not
sum to one; no function assumes that it does. The gradient is meant to be taken in p alone, at a constant q.

The paper names forward KL, reverse KL and the Jensen-Shannon divergence with equal weights; the skewed one and the
last three are additions. A new divergence is one more registered function, or one of a user's own, known by its path.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from resd.named import named
from resd.types import UserError

Buckets = Float[Tensor, "T K"]
Formula = Callable[[Buckets, Buckets, float], Buckets]

_FORMULAS: dict[str, Formula] = {}


def register(name: str) -> Callable[[Formula], Formula]:
    """Make a function of (log p [T, K], log q [T, K], alpha) -> value per bucket [T, K] known as `name`."""

    def add(formula: Formula) -> Formula:
        if name in _FORMULAS:
            raise ValueError(f"a divergence named {name!r} is registered already")
        _FORMULAS[name] = formula
        return formula

    return add


def divergence(name: str, alpha: float) -> Callable[[Buckets, Buckets], Buckets]:
    """The registered function `name`, or the one at `package.module:function` or `file.py:function`, at `alpha`.

    UserError for an unknown name, an alpha that it refuses, or a function that is no divergence.
    """
    if ":" in name:
        formula = _own(name)
    elif name in _FORMULAS:
        formula = _FORMULAS[name]
    else:
        known = ", ".join(sorted(_FORMULAS))
        raise UserError(f"Unknown divergence {name!r}: write one of {known}, or package.module:function.")
    log_one = torch.zeros(1, 1)
    formula(log_one, log_one, alpha)  # a bad alpha speaks up here rather than in the first update
    return lambda log_p_T_K, log_q_T_K: formula(log_p_T_K, log_q_T_K, alpha)


@cache
def _own(path: str) -> Formula:
    """A user's function, once it has given what a divergence does: tried on two distributions over three buckets."""
    key = "algorithm.objective.divergence"
    formula: Formula = named(key, path)
    log_p_T_K = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]).log().requires_grad_()
    log_q_T_K = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]).log()
    try:
        value_T_K = formula(log_p_T_K, log_q_T_K, 0.5)
        (gradient_T_K,) = torch.autograd.grad(value_T_K.sum(), log_p_T_K)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{key}={path} fails on log-probabilities of student and teacher [T, K] and alpha: {reason:.300}"
        ) from None
    if value_T_K.shape != log_p_T_K.shape:
        raise UserError(f"{key}={path} gives {[*value_T_K.shape]} for [2, 3]: return a value for each bucket")
    if not (value_T_K.isfinite().all() and gradient_T_K.isfinite().all()):
        raise UserError(f"{key}={path} or its gradient is not finite for ordinary distributions")
    same, other = value_T_K.detach().sum(-1).tolist()
    if abs(same) > 1e-5 or other <= 0:
        raise UserError(
            f"{key}={path} is {same:.3g} where student and teacher agree and {other:.3g} where they do not: "
            "a divergence is 0 and above 0"
        )
    return formula


@register("forward_kl")
def forward_kl(log_p_T_K: Buckets, log_q_T_K: Buckets, alpha: float) -> Buckets:
    """q log(q / p), f(t) = t log t: covers every mode of the teacher."""
    return log_q_T_K.exp() * (log_q_T_K - log_p_T_K)


@register("reverse_kl")
def reverse_kl(log_p_T_K: Buckets, log_q_T_K: Buckets, alpha: float) -> Buckets:
    """p log(p / q), f(t) = -log t: drops what the teacher finds improbable."""
    return log_p_T_K.exp() * (log_p_T_K - log_q_T_K)


@register("jsd")
def jsd(log_p_T_K: Buckets, log_q_T_K: Buckets, alpha: float) -> Buckets:
    """(1 - alpha) p log(p / m) + alpha q log(q / m) with m = (1 - alpha) p + alpha q, for alpha strictly in (0, 1).

    f(t) = alpha t log t - n log n with n = 1 - alpha + alpha t. Divided by alpha it tends to the forward KL for
    alpha -> 0, divided by 1 - alpha to the reverse KL for alpha -> 1.
    """
    if not 0 < alpha < 1:
        raise UserError(
            f"jsd is not defined for alpha={alpha}: write a value strictly between 0 and 1, "
            "or divergence=forward_kl for 0 or divergence=reverse_kl for 1."
        )
    log_m_T_K = torch.logaddexp(log_p_T_K + math.log1p(-alpha), log_q_T_K + math.log(alpha))
    student_T_K = log_p_T_K.exp() * (log_p_T_K - log_m_T_K)
    teacher_T_K = log_q_T_K.exp() * (log_q_T_K - log_m_T_K)
    return (1 - alpha) * student_T_K + alpha * teacher_T_K


@register("jeffreys")
def jeffreys(log_p_T_K: Buckets, log_q_T_K: Buckets, alpha: float) -> Buckets:
    """(p - q) log(p / q), f(t) = (t - 1) log t: the sum of both KL divergences."""
    return (log_p_T_K.exp() - log_q_T_K.exp()) * (log_p_T_K - log_q_T_K)


@register("squared_hellinger")
def squared_hellinger(log_p_T_K: Buckets, log_q_T_K: Buckets, alpha: float) -> Buckets:
    """(sqrt p - sqrt q)^2 / 2, f(t) = (1 - sqrt t)^2 / 2: in [0, 1] for distributions."""
    return ((log_p_T_K / 2).exp() - (log_q_T_K / 2).exp()).square() / 2


@register("total_variation")
def total_variation(log_p_T_K: Buckets, log_q_T_K: Buckets, alpha: float) -> Buckets:
    """|p - q| / 2, f(t) = |t - 1| / 2: in [0, 1] for distributions; its gradient at p = q is taken as zero."""
    return (log_p_T_K.exp() - log_q_T_K.exp()).abs() / 2
