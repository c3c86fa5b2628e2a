"""What the columns of a table of results are: their labels, their units, and which way is better.

A column is named by its measure, as `mae`, or by measure and part, as `mae_bone` or `dice_liver`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from medgan.errors import InputError

__all__ = ["MEASURES", "SET_MEASURES", "Better", "Measure", "base_of", "measure"]

Better = Literal["higher", "lower", "zero", "one", ""]
IMAGE = "image"  # the unit of the images, whatever it is


@dataclass(frozen=True)
class Measure:
    """A column of results.

    Args:
        name: of the column.
        label: for people.
        unit: `dB`, `mm`, `ml`, `%`; `image` and `image/mm` stand for the unit of the images; "" for none.
        better: `higher` or `lower` values; those nearer to `zero` or `one`; "" where no value is better than another.
    """

    name: str
    label: str
    unit: str
    better: Better

    def badness(self, value: float) -> float:
        """A number that is lower for a better value, whichever way the measure goes.

        Example:
            >>> measure("psnr").badness(30.0), measure("bias").badness(-4.0)
            (-30.0, 4.0)
        """
        ways = {"higher": -value, "lower": value, "zero": abs(value), "one": abs(value - 1), "": 0.0}
        return ways[self.better]

    def in_unit(self, unit: str) -> str:
        """The unit of a value, where the images are in this one."""
        return self.unit.replace(IMAGE, unit)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        one.name: one
        for one in (
            Measure("mae", "MAE", IMAGE, "lower"),
            Measure("bias", "Bias", IMAGE, "zero"),
            Measure("rmse", "RMSE", IMAGE, "lower"),
            Measure("nmse", "NMSE", "", "lower"),
            Measure("psnr", "PSNR", "dB", "higher"),
            Measure("ssim", "SSIM", "", "higher"),
            Measure("ms_ssim", "MS-SSIM", "", "higher"),
            Measure("nc_ssim", "SSIM, masked windows", "", "higher"),
            Measure("nmi", "NMI", "", "higher"),
            Measure("gradient_error", "Gradient error", "image/mm", "lower"),
            Measure("tolerant_mae", "MAE, tolerant", IMAGE, "lower"),
            Measure("volume_error", "Volume error", "ml", "zero"),
            Measure("dice", "Dice", "", "higher"),
            Measure("hd95", "HD95", "mm", "lower"),
            Measure("surface_distance", "Surface distance", "mm", "lower"),
            Measure("surface_dice", "Surface Dice", "", "higher"),
            Measure("num_lost", "Organs lost", "", "lower"),
            Measure("num_invented", "Organs invented", "", "lower"),
            Measure("wepl_mae", "WEPL error", "mm", "lower"),
            Measure("wepl_bias", "WEPL bias", "mm", "zero"),
            Measure("range_error", "Range error", "mm", "lower"),
            Measure("range_error_percent", "Range error", "%", "lower"),
            Measure("gamma_pass", "Gamma pass rate", "%", "higher"),
            Measure("gamma_mean", "Mean gamma", "", "lower"),
            Measure("slice_roughness", "Slice roughness", "", "one"),
            Measure("slice_jump", "Slice jump", IMAGE, "lower"),
            Measure("miscalibration", "Miscalibration", "", "lower"),
            Measure("ence", "ENCE", "", "lower"),
            Measure("spearman", "Spearman of σ and error", "", "higher"),
            Measure("sigma_scale", "σ scale", "", "one"),
            Measure("mean_sigma", "Mean σ", IMAGE, ""),
            Measure("zero_sigma_share", "Share of σ = 0", "", "lower"),
            Measure("coverage", "Coverage of σ", "", ""),
            Measure("frechet_distance", "Fréchet distance", "", "lower"),
            Measure("kid", "KID", "", "lower"),
            Measure("precision", "Precision", "", "higher"),
            Measure("recall", "Recall", "", "higher"),
            Measure("density", "Density", "", "higher"),
            Measure("diversity", "MS-SSIM within the set", "", ""),
        )
    }
)

# Of sets of images, which have no cases: Naeem's coverage of real images is no coverage of intervals by errors.
SET_MEASURES: Mapping[str, Measure] = MappingProxyType(
    {name: MEASURES[name] for name in ("frechet_distance", "kid", "precision", "recall", "density", "diversity")}
    | {"coverage": Measure("coverage", "Coverage", "", "higher")}
)
_LABELS = {  # where the part is a variant of the measure
    "ssim_2d": "SSIM (slices)",
    "ssim_wang2004": "SSIM (Wang 2004)",
    "ssim_wang2004_2d": "SSIM (Wang 2004, slices)",
    "ms_ssim_2d": "MS-SSIM (slices)",
    "ms_ssim_wang2004": "MS-SSIM (Wang 2003)",
    "ms_ssim_wang2004_2d": "MS-SSIM (Wang 2003, slices)",
    "range_error_p95": "Range error, 95th percentile",
}


def base_of(name: str) -> str:
    """The name of the measure that a column is one of.

    Raises:
        InputError: if there is none.

    Example:
        >>> base_of("surface_dice_liver"), base_of("range_error_percent")
        ('surface_dice', 'range_error_percent')
    """
    bases = [base for base in MEASURES if name == base or name.startswith(f"{base}_")]
    if not bases:
        known = ", ".join(MEASURES)
        raise InputError(f"no measure is called {name!r} (accepted: {known}, or one of these with _PART behind it)")
    return max(bases, key=len)


def measure(name: str) -> Measure:
    """The measure of a column.

    Raises:
        InputError: if there is none of this name.

    Example:
        >>> measure("mae_bone").label, measure("mae_bone").in_unit("HU"), measure("surface_dice_liver").better
        ('MAE, bone', 'HU', 'higher')
        >>> measure("ssim_wang2004_2d").label, measure("coverage_95").label
        ('SSIM (Wang 2004, slices)', 'Coverage of σ, 95 %')
    """
    base = MEASURES[base_of(name)]
    part = name[len(base.name) + 1 :].replace("_", " ")
    unit = " %" if base.name == "coverage" else ""
    return replace(base, name=name, label=_LABELS.get(name, f"{base.label}, {part}{unit}")) if part else base
