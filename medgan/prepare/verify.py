"""Whether a registration is right, by the search of `medgan check`: another one than that which has found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medgan.alignment import Misalignment, misalignment
from medgan.check import pose_faults
from medgan.errors import GeometryError, InputError
from medgan.volume import Volume

__all__ = ["Verified", "verified"]


@dataclass(frozen=True)
class Verified:
    """What is seen of a pair after registration.

    Args:
        pose: how both lie; None where that could not be told.
        doubts: why they hardly lie upon one another, a sentence each; none if they do.
        unseen: why it could not be told; "" if it could.
    """

    pose: Misalignment | None
    doubts: tuple[str, ...] = ()
    unseen: str = ""

    def to_json(self) -> dict[str, Any] | None:
        """In plain numbers; None where nothing could be told."""
        if self.pose is None:
            return None
        return {
            "left_mm": self.pose.distance_mm,
            "uncertainty_mm": self.pose.distance_uncertainty_mm,
            "shift_mm": list(self.pose.shift_mm),
            "rotation_deg": list(self.pose.rotation_deg),
            "disagreement_mm": self.pose.disagreement_mm,
            "mirror_gain": self.pose.mirror_gain,
        }


def verified(fixed: Volume, moved: Volume, names: str) -> Verified:
    """Look at a pair that was registered.

    Args:
        fixed: the image that stayed.
        moved: the other one, its voxels where they belong.
        names: of both, as a sentence has them.
    """
    try:
        pose = misalignment(fixed, moved)
    except (GeometryError, InputError) as error:
        return Verified(None, unseen=str(error))
    return Verified(pose, tuple(fault.reason for fault in pose_faults(pose, names)))
