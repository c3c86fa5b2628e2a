"""Numbers that say how good an image is, each proved against an independent reference."""

from medgan.metrics.calibration import LEVELS, Calibration, calibration
from medgan.metrics.image import HIGHER_IS_BETTER, PRESETS, Metric, Preset, mae, ms_ssim_2025, psnr, ssim_2023
from medgan.metrics.slices import slice_jump, slice_roughness

__all__ = [
    "HIGHER_IS_BETTER",
    "LEVELS",
    "PRESETS",
    "Calibration",
    "Metric",
    "Preset",
    "calibration",
    "mae",
    "ms_ssim_2025",
    "psnr",
    "slice_jump",
    "slice_roughness",
    "ssim_2023",
]
