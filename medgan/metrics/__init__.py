"""Numbers that say how good an image is, or a set of images, each proved against an independent reference.

Torch is not imported for numbers of arrays: what works on tensors, or runs a network, is imported when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from medgan.metrics.calibration import LEVELS, Calibration, calibration
from medgan.metrics.distribution import (
    Floored,
    Interval,
    Neighbourhoods,
    against_real,
    expected_coverage,
    frechet_distance,
    gap_closed,
    kid,
    mean_correlation,
    neighbourhoods,
    spread_ratio,
)
from medgan.metrics.errors import bias, gradient_error, mae, nmse, psnr, rmse, tolerant_mae
from medgan.metrics.gamma import gamma, gamma_pass_rate, gamma_scores
from medgan.metrics.image import ms_ssim_2025, ms_ssim_2025_fixed, ssim_2023, ssim_2023_fixed
from medgan.metrics.information import nmi
from medgan.metrics.labels import label_scores
from medgan.metrics.measures import MEASURES, Measure, measure
from medgan.metrics.membership import Membership, membership
from medgan.metrics.memorisation import (
    authenticity,
    closer_to_train,
    copies,
    distance_ratio,
    effective_number,
    hits,
    share_below,
)
from medgan.metrics.nearness import Nearness
from medgan.metrics.presets import PRESETS, Metric, Preset
from medgan.metrics.reduction import Reduction
from medgan.metrics.regions import HU_REGIONS, Region, region_scores
from medgan.metrics.sets import FeatureSet, SetScores, compare_sets
from medgan.metrics.slices import slice_jump, slice_roughness
from medgan.metrics.ssim import ms_ssim_2003, nc_ssim, ssim_2004
from medgan.metrics.streams import LoopMetric, PairedScores
from medgan.metrics.surfaces import hausdorff, hd95, mean_surface_distance, surface_dice, surface_distances
from medgan.metrics.water import PHOTONS, PROTONS, wepl, wepl_scores

if TYPE_CHECKING:
    from medgan.metrics.features import Features, HandMade, RandomConv, TorchScript, extractor
    from medgan.metrics.networks import ImageFeatures, image_features
    from medgan.metrics.spaces import in_features, in_pixels

__all__ = [
    "HU_REGIONS",
    "LEVELS",
    "MEASURES",
    "PHOTONS",
    "PRESETS",
    "PROTONS",
    "Calibration",
    "FeatureSet",
    "Features",
    "Floored",
    "HandMade",
    "ImageFeatures",
    "Interval",
    "LoopMetric",
    "Measure",
    "Membership",
    "Metric",
    "Nearness",
    "Neighbourhoods",
    "PairedScores",
    "Preset",
    "RandomConv",
    "Reduction",
    "Region",
    "SetScores",
    "TorchScript",
    "against_real",
    "authenticity",
    "bias",
    "calibration",
    "closer_to_train",
    "compare_sets",
    "copies",
    "distance_ratio",
    "effective_number",
    "expected_coverage",
    "extractor",
    "frechet_distance",
    "gamma",
    "gamma_pass_rate",
    "gamma_scores",
    "gap_closed",
    "gradient_error",
    "hausdorff",
    "hd95",
    "hits",
    "image_features",
    "in_features",
    "in_pixels",
    "kid",
    "label_scores",
    "mae",
    "mean_correlation",
    "mean_surface_distance",
    "measure",
    "membership",
    "ms_ssim_2003",
    "ms_ssim_2025",
    "ms_ssim_2025_fixed",
    "nc_ssim",
    "neighbourhoods",
    "nmi",
    "nmse",
    "psnr",
    "region_scores",
    "rmse",
    "share_below",
    "slice_jump",
    "slice_roughness",
    "spread_ratio",
    "ssim_2004",
    "ssim_2023",
    "ssim_2023_fixed",
    "surface_dice",
    "surface_distances",
    "tolerant_mae",
    "wepl",
    "wepl_scores",
]

_OF_TORCH = {
    **dict.fromkeys(("Features", "HandMade", "RandomConv", "TorchScript", "extractor"), "features"),
    **dict.fromkeys(("ImageFeatures", "image_features"), "networks"),
    **dict.fromkeys(("in_features", "in_pixels"), "spaces"),
}


def __getattr__(name: str) -> Any:
    if name not in _OF_TORCH:
        raise AttributeError(f"module 'medgan.metrics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medgan.metrics.{_OF_TORCH[name]}"), name)
