"""What goes wrong with one case of a cohort, as a table: how to make it, and what each command says of it."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from cohorts import ct, grid_of, inside, mr, places
from scipy import ndimage

from medgan import Volume, write

__all__ = ["FAULTS", "GOOD", "GRID", "Fault", "pair", "put_case", "put_file", "slug"]

Array = npt.NDArray[Any]
Make = Callable[[Path], object]
GRID = grid_of((22, 26, 18), (7, 7, 8), (0, 0, 0))
GOOD = ("good1", "good2", "good3")


@cache
def pair(seed: int) -> dict[str, Volume]:
    """MR, CT and mask of a head in which every voxel is its own; on one grid."""
    rng = np.random.default_rng([seed, 5])
    skin = inside(places(GRID), seed) > 0
    texture = np.where(skin, 6 * ndimage.gaussian_filter(rng.normal(0, 25, GRID.shape), 1), 0)
    a, b = mr(GRID, seed), ct(GRID, seed)
    noise = np.where(skin, texture + rng.normal(0, 12, GRID.shape), 0)
    return {
        "mr": a.with_array((a.array + texture).clip(0).astype(np.int16)),
        "ct": b.with_array((b.array + noise).clip(-1024).astype(np.int16)),
        "mask": Volume(skin.astype(np.uint8), GRID, "label"),
    }


def put_case(folder: Path, seed: int, *names: str) -> None:
    """`mr.nii.gz`, `ct.nii.gz` and `mask.nii.gz` in a folder, each with its JSON file; or only those of some names."""
    for name in names or ("mr", "ct", "mask"):
        write(pair(seed)[name], folder / f"{name}.nii.gz")


def put_file(path: Path, seed: int, name: str) -> None:
    """One image at a path of its own."""
    write(pair(seed)[name], path)


def slug(name: str) -> str:
    """The name of the case that has this fault."""
    return name.replace(" ", "_").replace(",", "")


# --- how an image is made bad -----------------------------------------------------------------------------------------


def bytes_of(change: Callable[[bytes], bytes], name: str = "ct") -> Make:
    return lambda case: file(case, name).write_bytes(change(file(case, name).read_bytes()))


def file(case: Path, name: str) -> Path:
    return case / f"{name}.nii.gz"


def bare(array: Array, affine: Array | None = None, name: str = "ct", code: int = 1) -> Make:
    """As another tool writes it, which tells neither unit nor modality."""

    def make(case: Path) -> None:
        without(name)(case)
        image = nib.Nifti1Image(array, None)
        image.header.set_sform(GRID.affine if affine is None else affine, code)
        image.header.set_qform(None, 0)
        nib.save(image, file(case, name))

    return make


def without(name: str) -> Make:
    def make(case: Path) -> None:
        file(case, name).unlink()
        (case / f"{name}.json").unlink(missing_ok=True)

    return make


def header(layout: str, place: int, *values: float) -> Make:
    """Other values in the header, at a place of it."""

    def change(data: bytes) -> bytes:
        raw = bytearray(gzip.decompress(data))
        struct.pack_into(layout, raw, place, *values)
        return gzip.compress(bytes(raw))

    return bytes_of(change)


def instead(what: Callable[[Path], object], name: str = "ct") -> Make:
    """Something else under the name of an image."""

    def make(case: Path) -> None:
        without(name)(case)
        what(file(case, name))

    return make


def copy_of_a(case: Path) -> None:
    for end in (".nii.gz", ".json"):
        shutil.copyfile(case / f"mr{end}", case / f"ct{end}")


CT = pair(99)["ct"].array
ONES = np.ones(GRID.shape, np.uint8)
FAR = GRID.affine + 1e4 * np.eye(4, k=3)
HOLES = np.where(np.arange(CT.size).reshape(CT.shape) % 99 == 0, np.nan, CT).astype(np.float32)


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What is wrong with one case, and what the commands say: patterns; "" where it is none of their business.

    Args:
        name: of the fault.
        make: it, in the folder of the case.
        index: the line by which the case is left out.
        check: kind and reason of a finding.
        prepare: why it is refused.
        export: why the cohort is refused.
        is_told: whether check leaves the case in and only tells.
    """

    name: str
    make: Make
    index: str
    check: str
    prepare: str
    export: str
    is_told: bool = False


def unreadable(name: str, make: Make, says: str, *, prepare: str = "", index: str = "") -> Fault:
    """No command can use it, and all say why."""
    return Fault(name, make, index or rf"b: .*{says}", rf"unreadable: b .*{says}", prepare or says, rf"b: .*{says}")


def blank(name: str, value: int) -> Fault:
    says = rf"b is constant \({value} everywhere\)"
    return Fault(name, bare(0 * CT + value), "b: all voxels are equal", f"constant: .* are {value}$", says, says)


GONE, CUT = "does not exist", "is damaged or cut short"
ABSENT = "b: .* is not there or cannot be read; correct the table"
NO_NUMBERS = r"voxels are NaN or infinite; replace"
FAULTS = [
    # files
    unreadable("missing", without("ct"), GONE, prepare=ABSENT, index="has no b"),
    unreadable("a broken link", instead(lambda path: path.symlink_to("gone")), GONE, prepare=ABSENT, index="has no b"),
    unreadable(
        "a link to itself", instead(lambda path: path.symlink_to(path.name)), GONE, prepare=ABSENT, index="has no b"
    ),
    unreadable("no bytes", bytes_of(lambda data: b""), r"does not start as NIfTI does \(it is empty\)"),
    unreadable("cut short", bytes_of(lambda data: data[: len(data) // 2]), CUT),
    unreadable("without its last bytes", bytes_of(lambda data: data[:-9]), CUT),
    unreadable("a flipped byte", bytes_of(lambda data: data[:-6] + bytes([data[-6] ^ 255]) + data[-5:]), CUT),
    unreadable("text", bytes_of(lambda data: b"not found\n"), "does not start as NIfTI"),
    unreadable("a web page, packed", bytes_of(lambda data: gzip.compress(b"<html>" * 99)), "does not start as NIfTI"),
    unreadable("an empty folder", instead(Path.mkdir), "holds no DICOM image", prepare=ABSENT),
    unreadable(
        "a device", instead(lambda path: path.symlink_to("/dev/zero")), "does not start as NIfTI", prepare=ABSENT
    ),
    unreadable(
        "a file that the system refuses", instead(lambda path: path.symlink_to("/proc/self/mem")), CUT, prepare=ABSENT
    ),
    unreadable(
        "a broken sidecar", lambda case: (case / "ct.json").write_text("{"), r"ct\.json: is no JSON object"
    ),
    # values
    blank("all zero", 0),
    blank("one value", 7),
    unreadable("nothing but NaN", bare(np.full(GRID.shape, np.nan, np.float32)), f"10296 of 10296 {NO_NUMBERS}"),
    unreadable("some NaN", bare(HOLES), f"104 of 10296 {NO_NUMBERS}"),
    unreadable("infinite", bare(np.where(np.isnan(HOLES), np.inf, HOLES)), f"104 of 10296 {NO_NUMBERS}"),
    unreadable("complex values", bare(CT.astype(np.complex64)), "has complex values"),
    unreadable("colours", bare(np.zeros(GRID.shape, np.dtype([(c, "u1") for c in "RGB"]))), "has colour values"),
    Fault("beyond 32 bits", bare(np.where(CT > 0, 3e38, -3e38).astype(np.float32)), "", r"too large: b .* 1e\+18",
          r"b has values from -3e\+38 to 3e\+38", ""),
    Fault("beyond 64 bits", bare(np.where(CT > 0, 1e300, CT)), "", r"too large: b .* 1e\+18", r"to 1e\+300", ""),
    Fault("a scaling that overflows", header("<2f", 112, 1e38, 0.0), "", "too large: b", "b has values from", ""),
    Fault("labels, not HU", bare((CT > 0).astype(np.uint8)), "", "b_level_au|anatomy", "hardly HU", ""),
    # dimensions and grids
    unreadable("4-D", bare(np.stack([CT] * 3, -1)), "holds 3 volumes"),
    unreadable("5-D", bare(np.stack([CT] * 3, -1)[:, :, :, None]), "holds 3 volumes"),
    Fault("four dimensions, one volume", bare(pair(98)["ct"].array[..., None]), "", "anatomy|", "", "", is_told=True),
    Fault("one slice", bare(CT[:, :, 9]), r"b is 22×26×1", "grids: a and b", "where all images were measured", "grids"),
    unreadable("a singular affine", bare(CT, np.diag([0, 7, 8, 1])), "the affine is singular"),
    unreadable("an affine of NaN", header("<f", 280, np.nan), "an affine is a finite 4×4 matrix"),
    unreadable("an infinite affine", header("<f", 280, np.inf), "an affine is a finite 4×4 matrix"),
    unreadable("voxels of a picometre", bare(CT, np.diag([1e-9, 1e-9, 1e-9, 1])), "the affine is singular"),
    unreadable("no orientation", bare(CT, code=0), "knows no orientation"),
    unreadable(
        "a huge shape", header("<4h", 40, 3, 32767, 32767, 32767), r"its header claims 70362301923790 bytes",
        index="b is 32767×32767×32767",
    ),
    unreadable("a negative shape", header("<4h", 40, 3, -5, 26, 18), "has no voxels"),
    unreadable("no voxels", header("<4h", 40, 3, 0, 26, 18), "has no voxels"),
    unreadable("an offset beyond the file", header("<f", 108, 1e9), CUT),
    unreadable("an unknown type", header("<2h", 70, 777, 16), CUT),
    Fault("far away", bare(pair(97)["ct"].array, FAR), "up to 1e.04 mm apart", "field of view: .* have 0%",
          "b: .* mm apart", "different grids"),
    # roles
    Fault("the same image in both roles", copy_of_a, "a and b are the same image", "copy: a and b are the same image",
          "b: its modality is MR, accepted is CT", "a and b are the same image"),
    # masks
    Fault("a mask on another grid", bare(np.ones((5, 5, 5), np.uint8), name="mask"), r"mask is 5×5×5",
          "mask: mask and a are on different grids", "", ""),
    Fault("a mask far away", bare(ONES, FAR, "mask"), "mask is 22×26×18 .* mm apart",
          "mask: mask and a are on different grids", "mask: the grids lie 10000 mm apart", ""),
    Fault("an empty mask", bare(0 * ONES, name="mask"), "", "mask: the mask is empty", "its mask is empty; draw", ""),
    Fault("the image as mask", lambda case: shutil.copyfile(case / "mr.nii.gz", case / "mask.nii.gz"), "",
          "mask: the mask has values from 0 to", "", "a and mask are the same image", is_told=True),
    Fault("a mask of NaN", bare(np.full(GRID.shape, np.nan, np.float32), name="mask"), f"mask: .*{NO_NUMBERS}",
          f"unreadable: mask .*{NO_NUMBERS}", NO_NUMBERS, f"mask: .*{NO_NUMBERS}"),
    Fault("a mask cut short", bytes_of(lambda data: data[:60], "mask"), f"mask: .*{CUT}", f"unreadable: mask .*{CUT}",
          CUT, f"mask: .*{CUT}"),
    Fault("no mask", without("mask"), "has no mask", "unreadable: mask .*does not exist", "mask: .* is not there",
          "mask: .*does not exist"),
]  # fmt: skip
