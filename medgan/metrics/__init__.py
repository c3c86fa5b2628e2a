"""Numbers that say how good an image is, each proved against an independent reference."""

from medgan.metrics.image import HIGHER_IS_BETTER, PRESETS, Metric, Preset, mae, ms_ssim_2025, psnr, ssim_2023

__all__ = ["HIGHER_IS_BETTER", "PRESETS", "Metric", "Preset", "mae", "ms_ssim_2025", "psnr", "ssim_2023"]
