"""The chain of scales against the closed form of the same least squares."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_ros.slam.scale import ScaleChain

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
