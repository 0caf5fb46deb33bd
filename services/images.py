"""Work on images: resize, crop, filter, rotate, thumbnail, watermark, change of format.

An image from outside is checked before it is decoded: where it lies, what it is, how big it would be.
The result has a name made from the work itself, so that the same task run twice writes one file.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from PIL import ExifTags, Image, ImageDraw, ImageFilter, ImageFont, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.paths import atomic_write, inside
from settings import settings

MAX_PIXELS = 80_000_000  # 240 MB of memory as RGB; a phone's photo has 12 to 50 million
MAX_SIDE = 16_383  # more does not fit into a WEBP
MAX_OPERATIONS = 20
QUALITY = 85  # of JPEG and WEBP, 1 to 100
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF"}
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
FILTERS = {
    "blur": ImageFilter.GaussianBlur(4),
    "contour": ImageFilter.CONTOUR(),
    "edges": ImageFilter.FIND_EDGES(),
    "emboss": ImageFilter.EMBOSS(),
    "sharpen": ImageFilter.UnsharpMask(),
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
SHEET_CELL, SHEET_CAPTION, SHEET_GAP = 240, 24, 8  # pixels

Pixels = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Resize(_Operation):
    """To `width` by `height`. With one of them, the other one follows the proportions."""

    type: Literal["resize"]
    width: Pixels | None = None
    height: Pixels | None = None

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if self.width is None and self.height is None:
            raise ValueError("give width, height or both")
        return self


class Crop(_Operation):
    """Keep `width` by `height` pixels from `left` and `top` on."""

    type: Literal["crop"]
    left: Annotated[int, Field(ge=0)] = 0
    top: Annotated[int, Field(ge=0)] = 0
    width: Pixels
    height: Pixels


class Filter(_Operation):
    """One of the filters by its name. Transparency stays as it is."""

    type: Literal["filter"]
    name: Literal["blur", "contour", "edges", "emboss", "grayscale", "sharpen"]


class Rotate(_Operation):
    """Counter-clockwise. The image grows so that no corner is lost."""

    type: Literal["rotate"]
    degrees: Annotated[float, Field(ge=-360, le=360)]


class Thumbnail(_Operation):
    """So that the longer side has at most `size` pixels. It never enlarges."""

    type: Literal["thumbnail"]
    size: Pixels = 256


class Watermark(_Operation):
    """Text in the lower right corner. Pillow's built-in font has the ASCII characters and ©."""

    type: Literal["watermark"]
    text: Annotated[str, Field(min_length=1, max_length=100, pattern=r"\A[ -~©]+\z")]
    opacity: Annotated[float, Field(gt=0, le=1)] = 0.6


class Format(_Operation):
    """Write the result as `format`. `quality` counts for JPEG and WEBP."""

    type: Literal["format"]
    format: Literal["JPEG", "PNG", "WEBP"]
    quality: Annotated[int, Field(ge=1, le=100)] = QUALITY


Operation = Annotated[
    Resize | Crop | Filter | Rotate | Thumbnail | Watermark | Format, Field(discriminator="type")
]
OPERATIONS: TypeAdapter[list[Operation]] = TypeAdapter(
    Annotated[list[Operation], Field(min_length=1, max_length=MAX_OPERATIONS)]
)


class ProcessedImage(TypedDict):
    """A written image. `path` starts at the data folder; `width` and `height` are pixels."""

    path: str
    width: int
    height: int
    format: str
    bytes: int


def process_image(
    image_path: str,
    operations: Sequence[Mapping[str, Any]],
    *,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ProcessedImage:
    """Apply `operations`, in their order, to an image in the data folder, and write a new image there.

    An operation is its type and its parameters: `{"type": "resize", "width": 800}`. A photo is turned
    upright first. What a camera writes beside the picture (place, time, owner) is not passed on. The
    result has the format of the original (PNG for GIF), unless there is an operation `format`.

    After each operation `on_progress` is called with the number done, the number of all, and its type.

    Raises `ValueError`, which names the argument, its value and the remedy, for an unknown operation or
    parameter, and for an image that is missing, outside the data folder, broken, animated, named for
    another format than it has, or larger than `MAX_PIXELS`. Then nothing is written.
    """
    steps = _checked_operations(operations)
    image, image_format = _open(image_path)
    if image_format not in SUFFIXES:
        image_format = "PNG"
    quality = QUALITY
    for number, step in enumerate(steps, start=1):
        if isinstance(step, Format):  # counts when the image is written
            image_format, quality = step.format, step.quality
        image = _apply(step, image)
        if on_progress:
            on_progress(number, len(steps), step.type)
    work = json.dumps([image_path, [step.model_dump() for step in steps]])
    name = f"{Path(image_path).stem[:50]}-{hashlib.sha256(work.encode()).hexdigest()[:10]}"
    return _save(image, _output_path(f"images/{name}{SUFFIXES[image_format]}"), quality)


def contact_sheet(image_paths: Sequence[str], output: str) -> ProcessedImage:
    """Put small copies of many images, with their names, on one sheet.

    `image_paths` are paths in the data folder, `output` the sheet's path in its sub-folder `out`.

    Raises `ValueError` as `process_image` does, for an empty list, and for more images than fit.
    """
    if not image_paths:
        raise ValueError("image_paths=[]: a contact sheet needs at least one image")
    path = _output_path(output)
    columns = math.ceil(math.sqrt(len(image_paths)))
    rows = math.ceil(len(image_paths) / columns)
    width, height = columns * SHEET_CELL, rows * (SHEET_CELL + SHEET_CAPTION)
    _check_size(f"a sheet of {len(image_paths)} images", width, height)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for position, image_path in enumerate(image_paths):
        left, top = position % columns * SHEET_CELL, position // columns * (SHEET_CELL + SHEET_CAPTION)
        image = _on_white(_open(image_path)[0])
        image.thumbnail((SHEET_CELL - SHEET_GAP, SHEET_CELL - SHEET_GAP))
        sheet.paste(image, (left + (SHEET_CELL - image.width) // 2, top + (SHEET_CELL - image.height) // 2))
        caption = Path(image_path).name[:30].encode("ascii", "replace").decode()
        draw.text((left + SHEET_CELL // 2, top + SHEET_CELL), caption, "black", anchor="ma")
    return _save(sheet, path, QUALITY)


def list_images(folder: str = "images") -> list[str]:
    """Return the paths of the images directly in `folder` of the data folder, sorted.

    Each starts at the data folder, as `process_image` takes it.

    Raises `ValueError` for a folder that is missing or outside the data folder.
    """
    path = inside(settings.data_dir, folder, field="folder")
    if not path.is_dir():
        raise ValueError(f"folder={folder!r}: no such folder in {settings.data_dir}; create it first")
    return sorted(
        str(Path(folder) / file.name)
        for file in path.iterdir()
        if file.suffix.lower() in FORMATS and file.is_file()
    )


def _checked_operations(operations: Sequence[Mapping[str, Any]]) -> list[Operation]:
    try:
        return OPERATIONS.validate_python(operations)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: ErrorDetails) -> str:
    # The location is the operation's position, then its type, then the parameter.
    name = "operations" + "".join(f"[{part}]" for part in problem["loc"][:1])
    name += "".join(f".{part}" for part in problem["loc"][2:])
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = f"{problem['loc'][1]} has no such parameter; correct or remove it"
    return f"{name}={problem['input']!r}: {text}"


def _open(image_path: str) -> tuple[Image.Image, str]:
    """Return an image, upright and in mode RGB or RGBA, and the format of its file."""
    path = inside(settings.data_dir, image_path, field="image_path")
    refused = f"image_path={image_path!r}"
    if not path.is_file():
        raise ValueError(f"{refused}: no such file in {settings.data_dir}; copy the image there first")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{refused}: not the name of an image; use one of {', '.join(FORMATS)}")
    try:
        # The formats are named: Pillow knows many more, and for one of them it starts another program.
        with Image.open(path, formats=[*SUFFIXES, "GIF"]) as image:
            image_format = _checked_format(image, FORMATS[path.suffix.lower()])
            image.load()
            return _normalized(image), image_format
    except UnidentifiedImageError:
        raise ValueError(f"{refused}: not an image, or its beginning is broken; save it again") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{refused}: {error}") from error


def _checked_format(image: ImageFile, expected: str) -> str:
    """Return the format of an opened image. Only its header has been read, so refusing costs nothing."""
    is_photo = image.format in ("JPEG", "MPO")  # MPO: a JPEG with a second picture, as phones make
    image_format = "JPEG" if is_photo else str(image.format)
    if image_format != expected:
        raise ValueError(f"named {expected}, but it is {image_format}; give it its right name")
    if not is_photo and getattr(image, "is_animated", False):
        raise ValueError("animated, and only one picture would be left; save that one as a file")
    _check_size("image", *image.size)
    return image_format


def _normalized(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of kind {image.mode!r}; save it with 8 bits a colour")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    # Only the colour profile goes on, if it still fits. The rest may tell where a photo was taken.
    profile = image.info.get("icc_profile") if image.mode == mode else None
    # Not ImageOps.exif_transpose: it fails where any other note of the camera is broken.
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    result = image.convert(mode) if turn is None else image.convert(mode).transpose(turn)
    result.info = {"icc_profile": profile} if profile else {}
    return result


def _apply(step: Operation, image: Image.Image) -> Image.Image:
    match step:
        case Resize():
            width = step.width or max(1, round(image.width * (step.height or 0) / image.height))
            height = step.height or max(1, round(image.height * width / image.width))
            _check_size("resize", width, height)
            return image.resize((width, height), Image.Resampling.LANCZOS)
        case Crop():
            right, bottom = step.left + step.width, step.top + step.height
            if right > image.width or bottom > image.height:
                raise ValueError(
                    f"crop to x={right}, y={bottom}: the image has {image.width} x {image.height} pixels; "
                    "stay inside"
                )
            return image.crop((step.left, step.top, right, bottom))
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


def _rotated(image: Image.Image, degrees: float) -> Image.Image:
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = image.width * cos + image.height * sin, image.width * sin + image.height * cos
    _check_size("rotate", round(width), round(height))  # twenty turns could double the image twenty times
    background = "white" if image.mode == "RGB" else (0, 0, 0, 0)
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=background)


def _filtered(image: Image.Image, name: str) -> Image.Image:
    colours = image.convert("RGB")
    result = colours.convert("L").convert("RGB") if name == "grayscale" else colours.filter(FILTERS[name])
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    return result


def _watermarked(image: Image.Image, text: str, opacity: float) -> Image.Image:
    size = max(10, min(image.height // 12, int(1.5 * image.width / len(text))))
    font = ImageFont.load_default(size)
    margin = size // 2
    corner = (image.width - margin, image.height - margin)
    for colour, offset in [("black", max(1, size // 20)), ("white", 0)]:  # readable on any background
        mask = Image.new("L", image.size)
        place = (corner[0] + offset, corner[1] + offset)
        ImageDraw.Draw(mask).text(place, text, round(255 * opacity), font, anchor="rs")
        image.paste(colour, (0, 0), mask)
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    result = Image.new("RGB", image.size, "white")
    result.paste(image, mask=image.getchannel("A"))
    return result


def _output_path(name: str) -> Path:
    path = inside(inside(settings.data_dir, "out"), name, field="output")
    if FORMATS.get(path.suffix.lower()) not in SUFFIXES:
        raise ValueError(f"output={name!r}: cannot be written; end it with {', '.join(SUFFIXES.values())}")
    return path


def _save(image: Image.Image, path: Path, quality: int) -> ProcessedImage:
    image_format = FORMATS[path.suffix.lower()]
    if image_format == "JPEG":
        image = _on_white(image)  # JPEG knows no transparency
    with atomic_write(path) as file:
        image.save(file, image_format, quality=quality, icc_profile=image.info.get("icc_profile"))
    return {
        "path": str(path.relative_to(inside(settings.data_dir, "."))),
        "width": image.width,
        "height": image.height,
        "format": image_format,
        "bytes": path.stat().st_size,
    }


def _check_size(what: str, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(
            f"{what}: {width} x {height} pixels; at most {MAX_PIXELS:,} pixels are allowed, "
            f"and {MAX_SIDE:,} on a side"
        )
