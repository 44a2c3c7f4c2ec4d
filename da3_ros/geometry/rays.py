"""Cameras from rays, in closed form.

DA3 predicts per pixel a ray (d, t) with ``P = t + D d`` in the frame of the window: ``d = R K^-1 [u v 1]`` and
``t`` the camera centre (Depth Anything 3, arXiv 2511.10647, section 3.1).  The paper recovers R and K from a
homography between the identity camera's directions and d; as the rays' third camera coordinate is 1 by definition,
no homogeneous scale is free and ``d = A p`` is a plain weighted 3x3 least squares, ``A = R K^-1``.  A QR
decomposition splits A; with K known, R is the rotation nearest to ``A K``.  Exact for any principal point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from da3_ros.geometry import robust, se3
from da3_ros.geometry.camera import Pinhole
from da3_ros.geometry.se3 import Array


@dataclass(frozen=True, slots=True, eq=False)
class RayCamera:
    """What a ray map says of its camera."""

    T_frame_cam: Array  # (4, 4), OpenCV axes, in the frame of the rays
    camera: Pinhole  # at the image size asked for
    direction_sigma: float  # robust spread of the direction residuals (unitless, z = 1)


def make_rays(T_frame_cam: Array, camera: Pinhole, height: int, width: int) -> Array:
    """Exact ray map (height, width, 6): direction then origin, at the centres of a coarser grid over the image."""
    directions = camera.resized(width, height).directions() @ T_frame_cam[:3, :3].T
    origins = np.broadcast_to(T_frame_cam[:3, 3], directions.shape)
    return np.concatenate([directions, origins], axis=-1)


def camera_from_rays(
    rays: Array,
    weights: Array,
    size: tuple[int, int],
    known: Pinhole | None = None,
    iterations: int = 5,
) -> RayCamera:
    """Fit one camera to a ray map.

    Args:
        rays: (h, w, 6) direction then origin, in the window's frame; the grid covers the whole image.
        weights: (h, w) confidence, 0 = ignore.
        size: (width, height) of the image that the camera is wanted for, pixels.
        known: the calibrated camera at any size; then only the rotation and centre are estimated.
        iterations: re-weightings (Tukey) against outliers.

    Raises:
        ValueError: fewer than six rays carry weight, or they are degenerate.
    """
    height, width = rays.shape[:2]
    grid = (known or Pinhole(*size, 1.0, 1.0, 0.0, 0.0)).resized(width, height)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    keep = (weights > 0) & np.isfinite(rays).all(axis=-1)
    if keep.sum() < 6:
        raise ValueError("fewer than six rays carry confidence")
    pixels = np.stack([u[keep], v[keep], np.ones(keep.sum())], axis=1).astype(float)
    # Centred and scaled pixels keep the normal equations well conditioned.
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    span = max(width, height) / 2
    N = np.array([[1 / span, 0, -centre[0] / span], [0, 1 / span, -centre[1] / span], [0, 0, 1.0]])
    p = pixels @ N.T
    d, origin, base = rays[keep][:, :3].astype(float), rays[keep][:, 3:].astype(float), weights[keep].astype(float)
    factor, sigma = base, 0.0
    A = np.eye(3)
    for _ in range(1 + iterations):
        normal = (p * factor[:, None]).T @ p
        if np.linalg.cond(normal) > 1e12:
            raise ValueError("the confident rays lie on a line")
        A = np.linalg.solve(normal, (p * factor[:, None]).T @ d).T
        residual = np.linalg.norm(d - p @ A.T, axis=1)
        sigma = robust.mad_sigma(residual, 0.0)
        if sigma < 1e-12:
            break
        factor = base * robust.tukey_weights(residual, sigma)
    A = A @ N  # d = A p with p in pixels of the grid
    if known is not None:
        rotation, camera = se3.nearest_rotation(A @ grid.matrix), known.resized(*size)
    else:
        rotation, camera = _split(A, width, height, size)
    location = [robust.tukey_location(origin[:, i], factor)[0] for i in range(3)]
    return RayCamera(se3.make(rotation, np.array(location)), camera, sigma)


def _split(A: Array, width: int, height: int, size: tuple[int, int]) -> tuple[Array, Pinhole]:
    """Split ``A = R K^-1`` by QR into a rotation and the camera at ``size``; skew is dropped."""
    q, r = np.linalg.qr(A)
    signs = np.sign(np.diag(r))
    q, r = q * signs, r * signs[:, None]
    if np.linalg.det(q) < 0 or np.abs(np.diag(r)).min() < 1e-12:
        raise ValueError("the rays do not form a camera: their directions are mirrored or flat")
    K = np.linalg.inv(r)
    K = K / K[2, 2]
    return q, Pinhole.from_matrix(K, width, height).resized(*size)
