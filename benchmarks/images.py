"""What a group of tasks gains: photos of 12 megapixels on all cores, beside the same service in a loop.

    python benchmarks/images.py --photos 200

The broker and the worker are real, in a sandbox of their own. 200 photos take about 600 MB in a temporary
folder.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from lab.sandbox import Sandbox
from services.images import list_images, process_image
from tasks.realworld_tasks import process_folder

FOLDER = "images"
SIZE = (4000, 3000)  # pixels
WEB_SIZE: list[dict[str, Any]] = [
    {"type": "thumbnail", "size": 1280},
    {"type": "filter", "name": "sharpen"},
    {"type": "watermark", "text": "learn celery"},
]


def make_photos(folder: Path, count: int) -> int:
    """Write `count` photos with soft shapes and the noise of a camera. Return their size in bytes."""
    folder.mkdir()
    shapes = Image.radial_gradient("L").resize(SIZE)
    for number in range(count):
        noise = Image.effect_noise(SIZE, 20)
        photo = Image.merge("RGB", [Image.blend(shapes, noise, share) for share in (0.2, 0.3, 0.4)])
        photo.save(folder / f"photo{number:04}.jpg", quality=90)
    return sum(file.stat().st_size for file in folder.iterdir())


def in_a_loop() -> float:
    """Process all photos one after the other, without Celery. Return the seconds."""
    photos = list_images(FOLDER)
    begin = time.perf_counter()
    for photo in photos:
        process_image(photo, WEB_SIZE)
    return time.perf_counter() - begin


def as_a_group(cores: int) -> float:
    """Process all photos by a worker with `cores` processes. Return the seconds to the last result."""
    with Sandbox(["realworld"], concurrency=cores):
        begin = time.perf_counter()
        process_folder(FOLDER, WEB_SIZE).delay().get(timeout=3600)
        return time.perf_counter() - begin


def main() -> None:
    """Make the photos, measure both ways, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=200, help="how many (default: 200)")
    photos = parser.parse_args().photos
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="learn-") as folder:
        # The process that measures is started anew and reads these: nothing of the learner's is touched.
        os.environ |= {
            "DATA_DIR": folder,
            "STATE_DIR": f"{folder}/state",
            "SANDBOX_DIR": f"{folder}/s",
            "DATABASE_URL": "",
            "CELERY_BROKER_URL": "",
            "CELERY_RESULT_BACKEND": "",
        }
        size = make_photos(Path(folder) / FOLDER, photos)
        print(f"{photos} photos of {SIZE[0] * SIZE[1] / 1e6:.0f} megapixels, {size / 1e6:,.0f} MB")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            loop = pool.submit(in_a_loop).result()
            group = pool.submit(as_a_group, cores).result()
    print(f"{'a loop':20}{loop:8.1f} s{photos / loop:8.1f} photos/s")
    print(f"{f'a group, {cores} processes':20}{group:8.1f} s{photos / group:8.1f} photos/s")
    print(f"the group is {loop / group:.2f} times as fast")


if __name__ == "__main__":
    main()
