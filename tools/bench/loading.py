"""What a training item and a start cost: medgan's patches against decoding images, its cache against none.

    python tools/bench/loading.py [--items 200] [--rounds 7] [--channels 1]
    python tools/bench/loading.py --table cases.csv --config configs/t1_to_flair.yaml [--rounds 3] [--workers 2]

The baseline of the first is the published procedure of pix2pix for one pair of 256 × 256: decode two PNG files, resize
both to 286 × 286 (bicubic), cut the same random 256 × 256, mirror half of the time, to a tensor in [-1, 1]. All ways
run in one process, in turn; a call is a number of items. The second reads the training cases of a table without the
cache, into an empty one, also by several processes, and from it: as files in memory, and as files that the system has
forgotten, beside the bytes of those files alone.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from interleaved import forgotten, machine, rounds, table
from PIL import Image
from scipy import ndimage

from medgan import Grid, Volume
from medgan.cache import cache
from medgan.cases import read_cases
from medgan.config import AnyConfig, load
from medgan.data import Augment, Pair, Patches, batches, read_pairs
from medgan.jitter import Size
from medgan.lessons import read_ahead

SLICE, RESIZED = 256, 286
PLAIN = Augment(flip_axes=(0,), rotate_deg=0, scale=0, gamma=0, noise=0)
TURNED = Augment(gamma=0, noise=0)


def anatomy(shape: Size, seed: int) -> np.ndarray:
    """A textured ball in air, values 0 to 1: it compresses about as well as a scan does."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    texture = 0.55 + 0.12 * texture / texture.std() + 0.02 * rng.standard_normal(shape)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    return np.where((places**2).sum(0) < 0.8, texture, 0).clip(0, 1).astype(np.float32)


def pair_of(shape: Size, seed: int) -> Pair:
    """A pair as the cache gives it: slice by slice in memory."""
    x, b = (torch.from_numpy(anatomy(shape, seed + n)).movedim(-1, 0).contiguous().movedim(0, -1)[None] for n in (0, 1))
    body = (x[0] > 0).numpy()
    empty = Volume(np.zeros(shape, np.int16), Grid.regular(shape))
    return Pair(f"p{seed}", x * 2 - 1, body, empty, b * 2 - 1, empty, body)


class Published:
    """The published procedure over a folder of PNG files."""

    def __init__(self, folder: Path, channels: int, count: int = 16) -> None:
        self.mode = "L" if channels == 1 else "RGB"
        self.files = [(folder / f"a{k}.png", folder / f"b{k}.png") for k in range(count)]
        volume = anatomy((SLICE, SLICE, 2 * count), 0)
        for k, name in enumerate(name for names in self.files for name in names):
            values = (volume[..., k] * 255).astype(np.uint8)
            Image.fromarray(values if channels == 1 else np.stack([values] * 3, -1)).save(name)

    def item(self, index: int) -> list[torch.Tensor]:
        draw = random.Random(index)
        left, top, mirrored = draw.randint(0, RESIZED - SLICE), draw.randint(0, RESIZED - SLICE), draw.random() < 0.5
        return [self._one(path, left, top, mirrored) for path in self.files[index % len(self.files)]]

    def _one(self, path: Path, left: int, top: int, mirrored: bool) -> torch.Tensor:
        image = Image.open(path).convert("RGB").convert(self.mode).resize((RESIZED, RESIZED), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + SLICE, top + SLICE))
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
        values = torch.from_numpy(np.array(image)).reshape(SLICE, SLICE, -1).movedim(-1, 0).contiguous()
        return (values.float() / 255 - 0.5) / 0.5


def items(of: Callable[[int], object], count: int) -> Callable[[], None]:
    """A call that makes so many items, others each time."""
    start = iter(range(0, 10**9, count))

    def call() -> None:
        first = next(start)
        for index in range(first, first + count):
            of(index)

    return call


def loaded(patches: Patches, count: int, batch: int) -> Callable[[], None]:
    """The same through MONAI's loader, in batches."""
    start = iter(range(0, 10**9, count // batch))

    def call() -> None:
        first = next(start)
        for _ in batches(patches, batch=batch, start=first, stop=first + count // batch):
            pass

    return call


def compare_items(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        published = Published(Path(folder), options.channels)
        slices, blocks = [[pair_of(shape, seed) for seed in (0, 2, 4)] for shape in ((300, 300, 40), (128, 128, 96))]
        ways: dict[str, Callable[[], None]] = {
            f"published, PNG of {options.channels}": items(published.item, options.items)
        }
        for name, augment in {"mirror": PLAIN, "+ turn, zoom": TURNED, "+ gamma, noise (default)": Augment()}.items():
            patches = Patches(slices, (SLICE, SLICE, 1), augment, 0)
            ways[f"256 × 256: {name}"] = items(patches.__getitem__, options.items)
            if augment is PLAIN:
                ways["256 × 256: mirror, batches of 4"] = loaded(patches, options.items, 4)
        for name, augment in {"mirror": PLAIN, "default": Augment()}.items():
            ways[f"64 × 64 × 64: {name}"] = items(Patches(blocks, (64, 64, 64), augment, 0).__getitem__, options.items)
        print(f"milliseconds of {options.items} items; ratio: items a second over those of the published procedure")
        print(table(rounds(ways, options.rounds)))


def whole_starts(config: AnyConfig, folder: str, workers: int) -> dict[str, Callable[[], object]]:
    """All that a training reads before its first step."""

    def start(*, clear: bool = False, workers: int = 0) -> None:
        if clear:
            cache(clear=True)
        read_ahead(config.model_copy(update={"train": config.train.model_copy(update={"workers": workers})}))

    os.environ["MEDGAN_CACHE"] = folder
    return {
        "empty cache": lambda: start(clear=True),
        f"empty cache, {workers} processes": lambda: start(clear=True, workers=workers),
        "full cache": start,
    }


def compare_starts(options: argparse.Namespace) -> None:
    config = load(options.config, [f"cases={options.table}"])
    cases = read_cases(config.cases, split="train", required=config.required)

    def start(place: str, *, clear: bool = False, workers: int = 0) -> None:
        os.environ["MEDGAN_CACHE"] = place
        if clear:
            cache(clear=True)
        for pair in read_pairs(cases, config.prep, "Reading", workers):
            pair.x[0, 0, 0, 0].item()

    def kept() -> list[Path]:
        return sorted(Path(folder).glob("*.safetensors"))

    scans = [path for case in cases for path in case.images.values()]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        ways: dict[str, Callable[[], object]] = {
            "no cache": lambda: start("off"),
            "empty cache": lambda: start(folder, clear=True),
            f"empty cache, {options.workers} processes": lambda: start(folder, clear=True, workers=options.workers),
            "full cache, in memory": lambda: start(folder),
            "its bytes alone, in memory": lambda: [path.read_bytes() for path in kept()],
        }
        print(f"milliseconds until {len(cases)} training cases can be cut, of files in memory")
        print(table(rounds(ways, options.rounds)))
        ways = {
            "the files it was made from": lambda: [path.read_bytes() for path in scans],
            "full cache": lambda: start(folder),
            "its bytes alone": lambda: [path.read_bytes() for path in kept()],
        }
        print("the same, of files that the system has forgotten")
        print(table(rounds(ways, options.rounds, before=lambda: forgotten([*kept(), *scans]))))
        if read_cases(config.cases, split="val", required=config.required):
            print("a whole start, with validation cases and the look for leaks, of files in memory")
            print(table(rounds(whole_starts(config, folder, options.workers), options.rounds)))
        print(f"{cache().size_bytes / 1e6:.0f} MB in the cache, of {sum(p.stat().st_size for p in scans) / 1e6:.0f} MB")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--table")
    parser.add_argument("--config")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", help="where the cache is made: on the disk that is to be measured")
    options = parser.parse_args(arguments)
    if bool(options.table) != bool(options.config):
        parser.error("--table and --config go together")
    torch.set_num_threads(1)
    print(machine())
    (compare_starts if options.table else compare_items)(options)


if __name__ == "__main__":
    main()
