"""Work on images: resize, crop, filter, rotate, thumbnail, watermark, change of format.

An image from outside is checked before it is decoded: where it lies, what it is, how big it would be.
The result has a name made from the work itself, so that the same task run twice writes one file.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from services.error_texts import shown
from services.image_files import (
    FORMATS,
    SUFFIXES,
    ProcessedImage,
    Refused,
    check_size,
    in_srgb,
    on_white,
    open_image,
    write_image,
)
from services.image_operations import (
    QUALITY,
    Crop,
    Filter,
    Format,
    Operation,
    OperationForm,
    Resize,
    Rotate,
    Thumbnail,
    Watermark,
    checked_operations,
)
from services.paths import inside, what_is_there
from settings import settings

FILTERS = {
    "blur": ImageFilter.GaussianBlur(4),
    "contour": ImageFilter.CONTOUR(),
    "edges": ImageFilter.FIND_EDGES(),
    "emboss": ImageFilter.EMBOSS(),
    "sharpen": ImageFilter.UnsharpMask(),
}
SMALLEST_TEXT = 8  # pixels; smaller letters cannot be read
SHEET_CELL, SHEET_CAPTION, SHEET_GAP = 240, 24, 8  # pixels


def process_image(
    image_path: str,
    operations: Sequence[Operation | OperationForm],
    *,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ProcessedImage:
    """Apply `operations`, in their order, to an image in the data folder, and write a new image there.

    An operation is its name, for the defaults in `services/image_operations.py`, or its type and parameters:
    `["thumbnail", {"type": "rotate", "degrees": 180}]`. A photo is turned upright first. What a camera writes
    beside the picture (place, time, owner) is not passed on. The result has the format of the original (PNG
    for GIF), unless there is an operation `format`.

    After each operation `on_progress` is called with the number done, the number of all, and its type.

    Raises `ValueError`, which names the argument, its value and the remedy, for an unknown operation or
    parameter, for one that the image has no room for, and for an image that is missing, outside the data
    folder, broken, animated, named for another format than it has, or too large. Then nothing is written.
    """
    steps = checked_operations(operations)
    image, image_format = open_image(image_path)
    if image_format not in SUFFIXES:
        image_format = "PNG"
    quality = QUALITY
    for number, step in enumerate(steps, start=1):
        if isinstance(step, Format):  # counts when the image is written
            image_format, quality = step.format, step.quality
        try:
            image = _apply(step, image)
        except Refused as error:
            raise ValueError(f"operations[{number - 1}]={step.type!r}: {error}") from None
        if on_progress:
            on_progress(number, len(steps), step.type)
    work = json.dumps([image_path, [step.model_dump() for step in steps]])
    name = f"{Path(image_path).stem[:50]}-{hashlib.sha256(work.encode()).hexdigest()[:10]}"
    try:
        return write_image(image, _output_path(f"images/{name}{SUFFIXES[image_format]}"), quality)
    except Refused as error:
        raise ValueError(f"image_path={shown(image_path)}: {error}") from None


def contact_sheet(image_paths: Sequence[str], output: str) -> ProcessedImage:
    """Put small copies of many images, with their names, on one sheet.

    `image_paths` are paths in the data folder, `output` the sheet's path in its sub-folder `out`.

    Raises `ValueError` as `process_image` does, for an empty list, and for more images than fit.
    """
    if not image_paths:
        raise ValueError("image_paths=[]: a contact sheet needs at least one image")
    path = _output_path(output)
    sheet = _empty_sheet(len(image_paths))
    draw = ImageDraw.Draw(sheet)
    columns = sheet.width // SHEET_CELL
    for position, image_path in enumerate(image_paths):
        left, top = position % columns * SHEET_CELL, position // columns * (SHEET_CELL + SHEET_CAPTION)
        image, _ = open_image(image_path)
        image.thumbnail((SHEET_CELL - SHEET_GAP, SHEET_CELL - SHEET_GAP))
        place = (left + (SHEET_CELL - image.width) // 2, top + (SHEET_CELL - image.height) // 2)
        sheet.paste(in_srgb(on_white(image)), place)  # one sheet has one kind of colours
        caption = Path(image_path).name[:30].encode("ascii", "replace").decode()
        draw.text((left + SHEET_CELL // 2, top + SHEET_CELL), caption, "black", anchor="ma")
    return write_image(sheet, path, QUALITY)


def list_images(folder: str = "images") -> list[str]:
    """Return the paths of the images directly in `folder` of the data folder, sorted.

    Each starts at the data folder, as `process_image` takes it.

    Raises `ValueError` for a folder that is missing or outside the data folder.
    """
    path = inside(settings.data_dir, folder, field="folder")
    if not path.is_dir():
        there = what_is_there(settings.data_dir, path, FORMATS)
        raise ValueError(f"folder={shown(folder)}: no such folder in {settings.data_dir}; {there}")
    return sorted(
        str(Path(folder) / file.name)
        for file in path.iterdir()
        if file.suffix.lower() in FORMATS and file.is_file()
    )


def _empty_sheet(images: int) -> Image.Image:
    columns = math.ceil(math.sqrt(images))
    rows = math.ceil(images / columns)
    width, height = columns * SHEET_CELL, rows * (SHEET_CELL + SHEET_CAPTION)
    try:
        check_size(width, height)
    except Refused as error:
        raise ValueError(f"image_paths has {images:,} images, and the sheet {error}") from None
    return Image.new("RGB", (width, height), "white")


def _output_path(name: str) -> Path:
    path = inside(inside(settings.data_dir, "out"), name, field="output")
    if FORMATS.get(path.suffix.lower()) not in SUFFIXES:
        raise ValueError(
            f"output={shown(name)}: cannot be written; end it with {', '.join(SUFFIXES.values())}"
        )
    if path.is_dir() or any(folder.is_file() for folder in path.parents):
        raise ValueError(f"output={shown(name)}: folders and files of these names exist; use another name")
    return path


# --- Operations ----------------------------------------------------------------------------------------


def _apply(step: Operation, image: Image.Image) -> Image.Image:
    match step:
        case Resize():
            return _resized(image, step)
        case Crop():
            return _cropped(image, step)
        case Filter():
            return _filtered(image, step.name)
        case Rotate():
            return _rotated(image, step.degrees)
        case Thumbnail():
            image.thumbnail((step.size, step.size))
            return image
        case Watermark():
            return _watermarked(image, step.text, step.opacity)
        case Format():
            return image


def _resized(image: Image.Image, step: Resize) -> Image.Image:
    if step.width is None and step.height is None:
        width, height = max(1, image.width // 2), max(1, image.height // 2)
    else:
        width = step.width or max(1, round(image.width * (step.height or 0) / image.height))
        height = step.height or max(1, round(image.height * width / image.width))
    check_size(width, height)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, step: Crop) -> Image.Image:
    if step.width is None or step.height is None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))
    right, bottom = step.left + step.width, step.top + step.height
    if right > image.width or bottom > image.height:
        raise Refused(
            f"x={right}, y={bottom} is the corner, and the image has {image.width} x {image.height} pixels; "
            "stay inside"
        )
    return image.crop((step.left, step.top, right, bottom))


def _rotated(image: Image.Image, degrees: float) -> Image.Image:
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = image.width * cos + image.height * sin, image.width * sin + image.height * cos
    check_size(round(width), round(height))  # twenty turns could double the image twenty times
    background = "white" if image.mode == "RGB" else (0, 0, 0, 0)
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=background)


def _filtered(image: Image.Image, name: str) -> Image.Image:
    if name == "grayscale":
        return image.convert({"RGB": "L", "RGBA": "LA"}[image.mode]).convert(image.mode)
    if image.mode == "RGB":
        return image.filter(FILTERS[name])
    result = _without_holes(image).filter(FILTERS[name])
    result.putalpha(image.getchannel("A"))
    return result


def _without_holes(image: Image.Image) -> Image.Image:
    """Return the colours of an RGBA image, where it is transparent those of what is visible nearby.

    A transparent pixel has a colour too, most often black. A filter would mix it into its neighbours.
    """
    # RGBa has each colour multiplied by its opacity. So what is transparent counts for nothing in a blur.
    nearby = image.convert("RGBa").filter(FILTERS["blur"]).convert("RGBA")
    nearby.putalpha(255)
    nearby.alpha_composite(image)
    return nearby.convert("RGB")


def _watermarked(image: Image.Image, text: str, opacity: float) -> Image.Image:
    size = _fitting_size(image, text)
    font = ImageFont.load_default(size)
    left, top, right, bottom = map(round, font.getbbox(text))
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).text((-left, -top), text, round(255 * opacity), font)
    margin, shadow = size // 2, max(1, size // 20)
    x, y = image.width - margin - mask.width, image.height - margin - mask.height
    for colour, offset in [("black", shadow), ("white", 0)]:  # readable on any background
        layer = Image.new("RGBA", mask.size, colour)
        layer.putalpha(mask)
        if image.mode == "RGBA":
            image.alpha_composite(layer, (x + offset, y + offset))
        else:
            image.paste(layer, (x + offset, y + offset), mask)
    return image


def _fitting_size(image: Image.Image, text: str) -> int:
    """Return the size of letters: a twelfth of the height, or what leaves a margin around `text`."""
    size = max(SMALLEST_TEXT, image.height // 12)
    while size >= SMALLEST_TEXT:
        left, top, right, bottom = ImageFont.load_default(size).getbbox(text)
        width, height = right - left + size, bottom - top + size
        if width <= image.width and height <= image.height:
            return size
        size = min(size - 1, int(size * image.width / width))
    raise Refused(
        f"the text does not fit on {image.width} x {image.height} pixels; use a shorter one or a larger image"
    )
