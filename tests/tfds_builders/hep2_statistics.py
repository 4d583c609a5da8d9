"""The statistics of HEp-2 cells by which synthetic and real specimens are compared."""

import numpy as np
from scipy import ndimage

PROFILE_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
OUTSIDE_EDGES = (1, 2.5, 4.5, 7.5)


def cell_statistics(image, mask, background, usable=None):
    """Measures one cell.

    Args:
      image: [h, w] grey levels of a window with at least 10 px around the cell.
      mask: bool [h, w] of the cell.
      background: grey level.
      usable: bool [h, w], pixels outside the cell that belong to no other object.
    """
    net = image.astype(np.float64) - background
    inside = net[mask]
    mean = inside.mean()
    depth = ndimage.distance_transform_edt(mask)
    distance = ndimage.distance_transform_edt(~mask)
    usable = ~mask if usable is None else usable & ~mask
    rho = 1 - depth / depth.max()
    rings = [(rho >= a) & (rho < b) & mask for a, b in zip(PROFILE_EDGES, PROFILE_EDGES[1:], strict=False)]
    outer = [(distance >= a) & (distance < b) & usable for a, b in zip(OUTSIDE_EDGES, OUTSIDE_EDGES[1:], strict=False)]
    rows, columns = np.nonzero(mask)
    moments = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
    return {
        "diameter": 2 * np.sqrt(mask.sum() / np.pi),
        "axis_ratio": np.sqrt(moments[0] / moments[1]),
        "level": image[mask].mean(),
        "net": mean,
        "cv": inside.std() / mean,
        "bright": (inside > 1.5 * mean).mean(),
        "dim": (inside < 0.6 * mean).mean(),
        "resid": _residual_sd(net, mask) / mean,
        "spots15": _extrema(net, mask, 1.5, mean),
        "holes15": _extrema(-net, mask, 1.5, mean),
        "spots3": _extrema(net, mask, 3.0, mean),
        "holes3": _extrema(-net, mask, 3.0, mean),
        "profile": [net[r].mean() / mean if r.any() else np.nan for r in rings],
        "outside": [net[r].mean() / mean if r.any() else np.nan for r in outer],
        "max": image[mask].max(),
    }


def _extrema(net, mask, sigma, mean):
    """Number of local maxima of the scale-normalised negative Laplacian of Gaussian above 0.15 net in the mask."""
    response = -ndimage.gaussian_laplace(net, sigma) * sigma**2
    peaks = (response == ndimage.maximum_filter(response, 3)) & (response > 0.15 * mean) & mask
    return int(peaks.sum())


def _residual_sd(net, mask):
    """Standard deviation inside the mask after a masked Gaussian of sigma 8 px is taken away."""
    weight = ndimage.gaussian_filter(mask.astype(float), 8)
    trend = ndimage.gaussian_filter(np.where(mask, net, 0.0), 8) / np.maximum(weight, 1e-6)
    return (net - trend)[mask].std()


def summary(cells):
    """Medians over cells of each statistic."""
    return {k: np.nanmedian(np.array([c[k] for c in cells], float), axis=0) for k in cells[0]}


def field_cells(field, nuclear, margin=10):
    """Measures the cells of a field that I3A would have kept: whole, isolated, in interphase, roundish if `nuclear`.

    The background is the 20th percentile outside the mask in the cell's window, which gives the published figures
    when applied to the I3A cells.
    """
    kinds = {item.instance: item.kind for item in field.objects}
    measured = []
    for instance, box in enumerate(ndimage.find_objects(field.instance_mask), 1):
        if box is None or kinds[instance] != "cell":
            continue
        window = tuple(slice(s.start - margin, s.stop + margin) for s in box)
        if any(s.start < 0 or s.stop > limit for s, limit in zip(window, field.image.shape, strict=True)):
            continue
        mask = field.instance_mask[window] == instance
        other = (field.instance_mask[window] > 0) & ~mask
        if (other & ndimage.binary_dilation(mask, iterations=2)).any():
            continue
        image = field.image[window]
        cell = cell_statistics(image, mask, np.percentile(image[~mask], 20), ~other)
        if not nuclear or cell["axis_ratio"] >= 0.694:
            measured.append(cell)
    return measured


def noise_sigma(image):
    """Standard deviation of the white noise of a flat image, from its Laplacian."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], float)
    return ndimage.convolve(image.astype(float), kernel)[1:-1, 1:-1].std() / 6
