"""The chain of scales against the closed form of the same least squares."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.slam.scale import ScaleChain
from da3_ros.types import Metre

CLAIMS = st.lists(
    st.tuples(
        st.floats(1e-3, 0.1),  # sigma of the step
        st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 0.5)), max_size=3),  # claims and their sigmas
    ),
    min_size=1,
    max_size=8,
)


def built(rows) -> ScaleChain:
    chain = ScaleChain()
    for step, claims in rows:
        chain.add(step)
        for claim in claims:
            chain.observe(*claim)
    return chain


def solved(rows) -> np.ndarray | None:
    """All values by dense least squares; None without any claim."""
    count = len(rows)
    A, b = [], []
    for k, (step, claims) in enumerate(rows):
        if k:
            row = np.zeros(count)
            row[k - 1 : k + 1] = -1, 1
            A.append(row / step)
            b.append(0.0)
        for z, sigma in claims:
            A.append(np.eye(count)[k] / sigma)
            b.append(z / sigma)
    if not any(claims for _, claims in rows):
        return None
    return np.linalg.lstsq(np.array(A), np.array(b), rcond=None)[0]


@settings(max_examples=200)
@given(CLAIMS)
def test_filter_and_smoother_solve_the_least_squares_they_stand_for(rows):
    chain, expected = built(rows), solved(rows)
    if expected is None:
        assert not chain.smoothed().any()
        assert chain.sigma == np.inf
        return
    np.testing.assert_allclose(chain.smoothed(), expected, atol=1e-6)
    # The filter's last value knows all that the smoother's last value knows.
    np.testing.assert_allclose(chain.value, expected[-1], atol=1e-6)


def test_more_claims_make_the_scale_surer():
    rows = [(0.01, [(0.1, 0.1)])] * 5
    few, many = built(rows), built([(step, claims * 3) for step, claims in rows])
    assert many.sigma < few.sigma < 0.1
    assert few.expect(0.05)[1] > few.sigma


@settings(max_examples=100)
@given(CLAIMS, st.data())
def test_a_claim_that_comes_late_counts_at_its_own_row(rows, data):
    """Filter and smoother solve the same least squares whenever a claim came."""
    row = data.draw(st.integers(0, len(rows) - 1))
    claim, sigma = 0.3, 0.05
    late = built(rows)
    late.observe(claim, sigma, Metre.DEPTH, row)
    in_time = [(step, [*claims, (claim, sigma)] if k == row else claims) for k, (step, claims) in enumerate(rows)]
    np.testing.assert_allclose(late.smoothed(), solved(in_time), atol=1e-6)
    np.testing.assert_allclose(late.value, solved(in_time)[-1], atol=1e-6)
    np.testing.assert_allclose(late.sigma, built(in_time).sigma, rtol=1e-6)


def test_the_weightiest_claims_come_first():
    chain = ScaleChain()
    chain.add(0.01)
    assert chain.sources == []
    for _ in range(3):
        chain.observe(0.1, 0.1)
    chain.observe(0.1, 0.02, Metre.ODOMETRY)
    assert chain.sources == [Metre.ODOMETRY, Metre.PREDICTOR]
    chain.forget_claims()
    assert chain.sources == []
