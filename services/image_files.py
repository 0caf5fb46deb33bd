"""Read and write image files: nothing is decoded before it is known where it lies, what it is and how big.

A read image is upright and in mode RGB or RGBA. Of what a file says beside the picture only the colour
profile goes on, because without it the colours change. The rest may tell where a photo was taken.
"""

import io
import struct
from pathlib import Path

from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.error_texts import shown
from services.image_operations import MAX_SIDE
from services.paths import atomic_write, inside, what_is_there
from settings import settings

# A phone's photo has 12 to 50 million pixels. Pillow keeps each in 4 bytes, and an operation may need four
# copies: 16 bytes a pixel, 816 MB for the largest picture. To write a WEBP takes up to 42 bytes a pixel.
MAX_PIXELS = 51_000_000
MAX_WEBP_PIXELS = 20_000_000
MAX_FILE_BYTES = 250_000_000  # of a file that is read: some of it is kept in memory too

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF"}
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
OTHER_FORMATS = {  # by what a file begins with, or has at byte 4
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"jP  ": "JPEG 2000",
    b"JXL ": "JPEG XL",
    b"ftypavif": "AVIF",
    b"ftyphei": "HEIC",
    b"ftypmif1": "HEIC",
}
UPRIGHT = {  # what undoes each way to hold a camera, by its number in the photo's EXIF notes
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, AssertionError, struct.error)


class Refused(ValueError):
    """What is wrong with an image, and the remedy. Who catches it says which image."""


class ProcessedImage(TypedDict):
    """A written image. `path` starts at the data folder; `width` and `height` are pixels."""

    path: str
    width: int
    height: int
    format: str
    bytes: int


def open_image(image_path: str) -> tuple[Image.Image, str]:
    """Return the image at `image_path` in the data folder, upright, in RGB or RGBA, and its file's format.

    Raises `ValueError` for an image that is missing, outside, broken, animated, misnamed or too large.
    """
    path = inside(settings.data_dir, image_path, field="image_path")
    try:
        return _read(path)
    except Refused as error:
        raise ValueError(f"image_path={shown(image_path)}: {error}") from None


def write_image(image: Image.Image, path: Path, quality: int) -> ProcessedImage:
    """Write `image`, with its colour profile, in the format that the suffix of `path` names.

    Raises `Refused` for a WEBP with more than `MAX_WEBP_PIXELS`.
    """
    image_format = FORMATS[path.suffix.lower()]
    if image_format == "JPEG":
        image = on_white(image)  # JPEG knows no transparency
    if image_format == "WEBP" and image.width * image.height > MAX_WEBP_PIXELS:
        raise Refused(
            f"{image.width} x {image.height} pixels; at most {MAX_WEBP_PIXELS:,} fit into a WEBP here; "
            "write another format, or resize it"
        )
    with atomic_write(path) as file:
        image.save(file, image_format, quality=quality, icc_profile=image.info.get("icc_profile"))
    return {
        "path": str(path.relative_to(inside(settings.data_dir, "."))),
        "width": image.width,
        "height": image.height,
        "format": image_format,
        "bytes": path.stat().st_size,
    }


def check_size(width: int, height: int) -> None:
    """Raise `Refused` if an image of this size would need too much memory, or cannot be written."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise Refused(
            f"{width} x {height} pixels; at most {MAX_PIXELS:,} are allowed, and {MAX_SIDE:,} on a side"
        )


def on_white(image: Image.Image) -> Image.Image:
    """Return `image` on a white ground in place of its transparency."""
    if image.mode == "RGB":
        return image
    result = Image.new("RGB", image.size, "white")
    result.paste(image, mask=image.getchannel("A"))
    result.info = image.info.copy()
    return result


def in_srgb(image: Image.Image) -> Image.Image:
    """Return an RGB, grey or CMYK `image` as RGB with the colours that its profile means, and no profile.

    A profile that is damaged says nothing: the colours stay as they are.
    """
    profile = io.BytesIO(image.info.get("icc_profile", b""))
    try:
        result = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        result = image.convert("RGB")
    assert result is not None  # only a change in place returns None
    result.info = {}
    return result


# --- Reading -------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Image.Image, str]:
    if not path.is_file():
        there = what_is_there(settings.data_dir, path, FORMATS)
        raise Refused(f"no such file in {settings.data_dir}; {there}; copy the image there first")
    if path.suffix.lower() not in FORMATS:
        raise Refused(_other_format(path) or f"not the name of an image; use one of {', '.join(FORMATS)}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Refused(f"{path.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed")
    try:
        # The formats are named: Pillow knows many more, and for one of them it starts another program.
        with Image.open(path, formats=[*SUFFIXES, "GIF"]) as image:
            image_format = _checked_format(image, FORMATS[path.suffix.lower()])
            image.load()
            return _upright(_in_rgb(image), _orientation(image)), image_format
    except Refused:
        raise
    except UnidentifiedImageError:
        raise Refused(
            _other_format(path) or "not an image, or its beginning is broken; save it again"
        ) from None
    except Image.DecompressionBombError:
        raise Refused(f"far more pixels than the {MAX_PIXELS:,} that are allowed") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno:
            raise  # not the file, but the disk or the permissions
        raise Refused(f"broken ({str(error) or type(error).__name__}); save it again") from error


def _other_format(path: Path) -> str | None:
    """Say what a file is that is not read here. Phones write HEIC, and programs name it .jpg."""
    with path.open("rb") as file:
        beginning = file.read(16)
    for mark, name in OTHER_FORMATS.items():
        if beginning.startswith(mark) or beginning[4:].startswith(mark):
            return f"it is {name}, which is not read here; save it as JPEG or PNG"
    return None


def _checked_format(image: ImageFile, expected: str) -> str:
    """Return the format of an opened image. Only its header has been read, so refusing costs nothing."""
    is_photo = image.format in ("JPEG", "MPO")  # MPO: a JPEG with a second picture, as phones make
    image_format = "JPEG" if is_photo else str(image.format)
    if image_format != expected:
        raise Refused(f"named {expected}, but it is {image_format}; give it its right name")
    check_size(*image.size)
    if not is_photo and getattr(image, "is_animated", False):
        raise Refused("animated, and only one picture would be left; save that one as a file")
    return image_format


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return None  # damaged notes do not make a damaged picture: it stays as it is


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    # Not ImageOps.exif_transpose: it fails where any other note of the camera is broken.
    turn = UPRIGHT.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def _in_rgb(image: Image.Image) -> Image.Image:
    """Return a picture in RGB or RGBA, with its colour profile if that one is for RGB.

    A profile for grey or ink fits no longer, so it is applied: the colours become those of sRGB.
    """
    if image.mode == "I;16" and not image.has_transparency_data:
        image = _in_eight_bits(image)
    if image.mode.startswith(("I", "F")):
        raise Refused(f"pixels of kind {image.mode!r}; save it with 8 bits a colour")
    result = image.convert("RGBA" if image.has_transparency_data else "RGB")
    profile = image.info.get("icc_profile", b"")
    kind = {"1": "GRAY", "L": "GRAY", "LA": "GRAY", "CMYK": "CMYK"}.get(image.mode, "RGB")
    result.info = {"icc_profile": profile} if kind == "RGB" and _space(profile) == kind else {}
    if kind != "RGB" and _space(profile) == kind:
        colours = in_srgb(image.convert("L") if kind == "GRAY" else image)
        if result.mode == "RGBA":
            colours.putalpha(result.getchannel("A"))
        return colours
    return result


def _in_eight_bits(image: Image.Image) -> Image.Image:
    result = image.point(lambda value: value / 256).convert("L")
    result.info = image.info
    return result


def _space(profile: bytes) -> str | None:
    """Return which kind of colours a profile is for: RGB, GRAY, CMYK; None if it is damaged."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except OSError:
        return None
