"""Make sample images: invented landscapes, the same for the same seed, and a badge with transparency.

python data/make_images.py --photos 200 --megapixels 12 --folder data/images/many
"""

import argparse
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
HELD_SIDEWAYS = 6


def make_photo(width: int, height: int, rng: random.Random) -> Image.Image:
    """Return a landscape of `width` by `height` pixels: sky, sun, some ranges of hills, a little grain."""
    tint = rng.randrange(-30, 31)
    sky = Image.linear_gradient("L").resize((width, height))
    photo = Image.merge(
        "RGB",
        [
            sky.point(lambda v, base=base: base + v * (230 - base) // 255)
            for base in (40 + tint, 90, 170 - tint)
        ],
    )
    draw = ImageDraw.Draw(photo)
    sun = height * rng.uniform(0.05, 0.1)
    draw.circle((width * rng.uniform(0.15, 0.85), height * rng.uniform(0.15, 0.4)), sun, (255, 240, 200))
    for distance in range(4):
        top = height * (0.45 + 0.14 * distance)
        waves = [(rng.uniform(0.02, 0.06), rng.uniform(1, 7), rng.uniform(0, 6)) for _ in range(4)]
        ridge = [
            (x, top + height * sum(a * math.sin(f * math.pi * x / width + p) for a, f, p in waves))
            for x in range(0, width + 8, 8)
        ]
        green = 150 - 35 * distance
        colour = (green - 40 + tint // 2, green, green - 20 - tint // 2)
        draw.polygon([(0, height), *ridge, (width, height)], fill=colour)
    grain = Image.frombytes("L", (width, height), rng.randbytes(width * height))
    return Image.blend(photo, grain.convert("RGB"), 0.03)


def save_photo(photo: Image.Image, path: Path, *, held_sideways: bool) -> None:
    """Write `photo` as JPEG, if asked for as a camera does that is held sideways: turned, with a note."""
    exif = Image.Exif()
    if held_sideways:
        photo = photo.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION] = HELD_SIDEWAYS
    photo.save(path, quality=80, exif=exif)


def make_badge(size: int) -> Image.Image:
    """Return a round badge of `size` by `size` pixels on a transparent ground."""
    badge = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(badge)
    draw.ellipse((2, 2, size - 3, size - 3), fill=(30, 120, 90, 255), outline=(255, 255, 255, 200), width=6)
    draw.text((size // 2, size // 2), "C", "white", anchor="mm", font_size=size * 0.6)
    return badge


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=3, help="how many photos (default 3)")
    parser.add_argument("--megapixels", type=float, default=0.1, help="size of each photo (default 0.1)")
    parser.add_argument("--seed", type=int, default=57, help="another seed, other landscapes")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    height = round(math.sqrt(options.megapixels * 1_000_000 / 1.5))
    for number in range(1, options.photos + 1):
        photo = make_photo(height * 3 // 2, height, rng)
        save_photo(photo, options.folder / f"photo{number}.jpg", held_sideways=number % 3 == 0)
    make_badge(200).save(options.folder / "badge.png")


if __name__ == "__main__":
    main()
