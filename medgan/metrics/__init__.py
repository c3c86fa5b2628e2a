"""Numbers that say how good an image is, or a set of images, each proved against an independent reference."""

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
from medgan.metrics.features import Features, HandMade, RandomConv, Reduction, TorchScript, extractor
from medgan.metrics.image import HIGHER_IS_BETTER, mae, ms_ssim_2025, psnr, ssim_2023
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
from medgan.metrics.nearness import Nearness, in_features, in_pixels
from medgan.metrics.presets import PRESETS, Metric, Preset
from medgan.metrics.slices import slice_jump, slice_roughness

__all__ = [
    "HIGHER_IS_BETTER",
    "LEVELS",
    "PRESETS",
    "Calibration",
    "Features",
    "Floored",
    "HandMade",
    "Interval",
    "Membership",
    "Metric",
    "Nearness",
    "Neighbourhoods",
    "Preset",
    "RandomConv",
    "Reduction",
    "TorchScript",
    "against_real",
    "authenticity",
    "calibration",
    "closer_to_train",
    "copies",
    "distance_ratio",
    "effective_number",
    "expected_coverage",
    "extractor",
    "frechet_distance",
    "gap_closed",
    "hits",
    "in_features",
    "in_pixels",
    "kid",
    "mae",
    "mean_correlation",
    "membership",
    "ms_ssim_2025",
    "neighbourhoods",
    "psnr",
    "share_below",
    "slice_jump",
    "slice_roughness",
    "spread_ratio",
    "ssim_2023",
]
