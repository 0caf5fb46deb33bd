"""Image work on real images: what each operation does, and what is refused before anything is written."""

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFont, ImageOps

from services import image_operations
from services.image_files import MAX_FILE_BYTES, MAX_PIXELS, MAX_WEBP_PIXELS
from services.image_operations import Filter, OperationForm
from services.images import FILTERS, contact_sheet, list_images, process_image
from settings import ROOT, settings

SMALLER: dict[str, Any] = {"type": "resize", "width": 60}
YELLOW = (255, 255, 0)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a flag of 120 x 80 pixels, red on the left and blue on the right."""
    (tmp_path / "images").mkdir()
    image = Image.new("RGB", (120, 80), (200, 30, 30))
    ImageDraw.Draw(image).rectangle((60, 0, 119, 79), (30, 30, 200))
    image.save(tmp_path / "images" / "flag.png")
    image.save(tmp_path / "images" / "flag.jpg", quality=95)
    monkeypatch.setattr(settings, "data_dir", tmp_path)
    return tmp_path


def result_of(data: Path, *operations: OperationForm, image: str = "images/flag.png") -> Image.Image:
    """Process an image and return the written one."""
    with Image.open(data / process_image(image, operations)["path"]) as result:
        result.load()
        return result


def outputs(data: Path) -> list[Path]:
    """Everything in the output folder, hidden files too."""
    return [path for path in (data / "out").rglob("*") if path.is_file()]


def colour(image: Image.Image, x: int, y: int) -> str:
    red, green, blue = image.convert("RGB").getpixel((x, y))  # type: ignore[misc]
    names = {"red": red, "green": green, "blue": blue}
    return "white" if min(names.values()) > 200 else max(names, key=lambda name: names[name])


def test_the_result_says_what_was_written_where(data: Path):
    result = process_image("images/flag.jpg", [SMALLER])
    path = data / result["path"]
    assert path.parent == data / "out" / "images"
    assert result == {
        "path": result["path"],
        "width": 60,
        "height": 40,
        "format": "JPEG",
        "bytes": path.stat().st_size,
    }
    assert (data / "images" / "flag.jpg").exists()


def test_the_same_work_twice_gives_one_file_and_other_work_another(data: Path):
    first = process_image("images/flag.png", [SMALLER])
    assert process_image("images/flag.png", [SMALLER]) == first
    assert process_image("images/flag.png", [{"type": "resize", "width": 30}])["path"] != first["path"]
    assert process_image("images/flag.jpg", [SMALLER])["path"] != first["path"]
    assert len(outputs(data)) == 3


def test_progress_is_told_after_each_operation(data: Path):
    told: list[tuple[int, int, str]] = []
    process_image(
        "images/flag.png",
        [SMALLER, {"type": "filter", "name": "blur"}, {"type": "format", "format": "WEBP"}],
        on_progress=lambda *step: told.append(step),
    )
    assert told == [(1, 3, "resize"), (2, 3, "filter"), (3, 3, "format")]


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ({"type": "resize", "width": 60}, (60, 40)),
        ({"type": "resize", "height": 160}, (240, 160)),
        ({"type": "resize", "width": 50, "height": 70}, (50, 70)),
        ({"type": "resize", "width": 1}, (1, 1)),
        ({"type": "crop", "left": 10, "top": 5, "width": 30, "height": 20}, (30, 20)),
        ({"type": "rotate", "degrees": 90}, (80, 120)),
        ({"type": "rotate", "degrees": 45}, (142, 142)),
        ({"type": "thumbnail", "size": 30}, (30, 20)),
        ({"type": "thumbnail", "size": 500}, (120, 80)),
        ({"type": "watermark", "text": "© Ada 2026"}, (120, 80)),
    ],
)
def test_an_operation_gives_the_size_that_it_promises(
    data: Path, operation: dict[str, Any], size: tuple[int, int]
):
    assert result_of(data, operation).size == size


def test_crop_keeps_the_part_that_was_asked_for(data: Path):
    result = result_of(data, {"type": "crop", "left": 50, "width": 20, "height": 20})
    assert [colour(result, 0, 10), colour(result, 19, 10)] == ["red", "blue"]


def test_rotate_turns_counter_clockwise_and_fills_with_white(data: Path):
    quarter = result_of(data, {"type": "rotate", "degrees": 90})
    assert [colour(quarter, 40, 0), colour(quarter, 40, 119)] == ["blue", "red"]
    assert colour(result_of(data, {"type": "rotate", "degrees": 45}), 0, 0) == "white"


# --- a name alone stands for the defaults ---


@pytest.mark.parametrize(
    ("name", "full", "size"),
    [
        ("resize", {"type": "resize", "width": 60, "height": 40}, (60, 40)),
        ("crop", {"type": "crop", "left": 20, "width": 80, "height": 80}, (80, 80)),
        ("filter", {"type": "filter", "name": "sharpen"}, (120, 80)),
        ("rotate", {"type": "rotate", "degrees": 90}, (80, 120)),
        ("thumbnail", {"type": "thumbnail", "size": 256}, (120, 80)),
    ],
)
def test_a_name_alone_is_the_operation_with_its_defaults(
    data: Path, name: str, full: dict[str, Any], size: tuple[int, int]
):
    result = result_of(data, name)
    assert result.size == size
    assert result.tobytes() == result_of(data, {"type": name}).tobytes() == result_of(data, full).tobytes()


def test_a_name_and_its_full_form_are_the_same_work_with_one_file(data: Path):
    names = process_image("images/flag.png", ["filter", "rotate", "thumbnail"])
    full: list[OperationForm] = [
        {"type": "filter", "name": "sharpen"},
        {"type": "rotate", "degrees": 90},
        {"type": "thumbnail", "size": 256},
    ]
    assert process_image("images/flag.png", full) == names
    assert len(outputs(data)) == 1


def test_names_and_full_forms_can_be_mixed(data: Path):
    assert result_of(data, "resize", "crop", "filter").size == (40, 40)
    mixed = result_of(data, "crop", {"type": "resize", "width": 30}, "rotate")
    assert (mixed.size, colour(mixed, 15, 0), colour(mixed, 15, 29)) == ((30, 30), "blue", "red")


def test_the_smallest_image_can_be_halved_and_cropped(data: Path):
    Image.new("RGB", (1, 1)).save(data / "dot.png")
    assert result_of(data, "resize", "crop", "filter", "rotate", "thumbnail", image="dot.png").size == (1, 1)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("Resize", "with none both are halved"),
        ("Crop", "by default the largest square in the middle"),
        ("Filter", "by default sharpen"),
        ("Rotate", "by default a quarter turn"),
        ("Thumbnail", "by default 256"),
        ("Watermark", "60 % opaque by default"),
        ("Format", "85 by default"),
    ],
)
def test_the_docstring_of_an_operation_says_its_defaults(name: str, default: str):
    assert default in getattr(image_operations, name).__doc__


# --- filters ---


@pytest.mark.parametrize("name", [*FILTERS, "grayscale"])
def test_each_filter_changes_the_picture(data: Path, name: str):
    assert (
        result_of(data, {"type": "filter", "name": name}).tobytes()
        != result_of(data, {"type": "thumbnail"}).tobytes()
    )


def test_grayscale_leaves_no_colour(data: Path):
    red, green, blue = result_of(data, {"type": "filter", "name": "grayscale"}).split()
    assert red.tobytes() == green.tobytes() == blue.tobytes()


def test_every_filter_that_may_be_named_exists():
    allowed = Filter.model_json_schema()["properties"]["name"]["enum"]
    assert set(allowed) == {*FILTERS, "grayscale"}


def test_a_watermark_is_in_the_lower_right_corner_only(data: Path):
    before = result_of(data, {"type": "thumbnail"})
    after = result_of(data, {"type": "watermark", "text": "Ada", "opacity": 1.0})
    upper, lower = (0, 0, 120, 40), (60, 40, 120, 80)
    assert after.crop(upper).tobytes() == before.crop(upper).tobytes()
    assert after.crop(lower).tobytes() != before.crop(lower).tobytes()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((60, 40), "learn celery"),
        ((60, 200), "learn celery"),
        ((120, 80), "© Ada 2026"),
        ((300, 200), "W" * 30),
        ((400, 300), "i" * 100),
        ((300, 40), "jumping quickly"),
        ((1600, 1200), "learn celery"),
    ],
)
def test_a_watermark_fits_on_the_image_with_a_margin_around_it(data: Path, size: tuple[int, int], text: str):
    Image.new("RGB", size, "grey").save(data / "plain.png")
    result = result_of(data, {"type": "watermark", "text": text, "opacity": 1.0}, image="plain.png")
    changed = ImageChops.difference(result, Image.new("RGB", size, "grey")).getbbox()
    assert changed is not None
    left, top, right, bottom = changed
    assert 0 < left < right < size[0]
    assert 0 < top < bottom < size[1]
    # All of the text is there: it is as wide in proportion to its height as the font says.
    whole = ImageFont.load_default(100).getbbox(text)
    proportion = (whole[2] - whole[0]) / (whole[3] - whole[1])
    assert (right - left) / (bottom - top) == pytest.approx(proportion, rel=0.35)


@pytest.mark.parametrize(("size", "text"), [((40, 40), "learn celery"), ((300, 10), "a"), ((1, 1), "a")])
def test_a_watermark_that_could_not_be_read_is_refused(data: Path, size: tuple[int, int], text: str):
    Image.new("RGB", size).save(data / "small.png")
    with pytest.raises(ValueError, match=r"operations\[1\]='watermark': the text does not fit on \d+ x \d+"):
        process_image("small.png", ["filter", {"type": "watermark", "text": text}])
    assert outputs(data) == []


def test_a_watermark_looks_the_same_on_glass_as_on_what_lies_behind_it(data: Path):
    Image.new("RGBA", (120, 80)).save(data / "glass.png")
    Image.new("RGB", (120, 80), "white").save(data / "white.png")
    mark = {"type": "watermark", "text": "Ada"}
    behind = Image.new("RGBA", (120, 80), "white")
    behind.alpha_composite(result_of(data, mark, image="glass.png"))
    difference = ImageChops.difference(behind.convert("RGB"), result_of(data, mark, image="white.png"))
    assert max(high for _, high in difference.getextrema()) <= 3  # type: ignore[misc]


@pytest.mark.parametrize(("image_format", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")])
def test_the_format_can_be_changed(data: Path, image_format: str, suffix: str):
    result = process_image("images/flag.png", [{"type": "format", "format": image_format}])
    assert (result["format"], Path(result["path"]).suffix) == (image_format, suffix)
    assert Image.open(data / result["path"]).format == image_format


def test_transparency_stays_in_png_and_becomes_white_in_jpeg(data: Path):
    Image.new("RGBA", (40, 40)).save(data / "images" / "glass.png")
    for operation in [SMALLER, {"type": "filter", "name": "edges"}, {"type": "rotate", "degrees": 10}]:
        assert result_of(data, operation, image="images/glass.png").getchannel("A").getextrema() == (0, 0)
    jpeg = result_of(data, {"type": "format", "format": "JPEG"}, image="images/glass.png")
    assert colour(jpeg, 20, 20) == "white"


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (0, 0, 255)])
@pytest.mark.parametrize(
    "operation",
    [
        *({"type": "filter", "name": name} for name in [*FILTERS, "grayscale"]),
        {"type": "resize", "width": 37},
        {"type": "resize", "width": 200, "height": 30},
        {"type": "thumbnail", "size": 30},
        {"type": "rotate", "degrees": 30},
        "rotate",
    ],
    ids=str,
)
def test_the_colour_of_what_is_transparent_never_shows(
    data: Path, hidden: tuple[int, ...], operation: OperationForm
):
    Image.new("RGB", (100, 100), YELLOW).save(data / "full.png")
    sticker = Image.new("RGBA", (100, 100), (*hidden, 0))
    sticker.paste((*YELLOW, 255), (30, 30, 70, 70))
    sticker.paste((*YELLOW, 100), (70, 40, 80, 60))
    sticker.save(data / "sticker.png")
    # An operation makes of a yellow sticker what it makes of a yellow page.
    full = result_of(data, operation, image="full.png")
    expected = full.getpixel((full.width // 2, full.height // 2))
    result = result_of(data, operation, image="sticker.png")
    difference = ImageChops.difference(result.convert("RGB"), Image.new("RGB", result.size, expected))
    visible = result.getchannel("A").point(lambda opacity: 255 * (opacity > 25))
    seen = Image.composite(difference, Image.new("RGB", result.size), visible)
    assert max(high for _, high in seen.getextrema()) <= 8  # type: ignore[misc]
    assert result.getchannel("A").getextrema()[1] == 255


def test_a_gif_with_one_picture_becomes_png(data: Path):
    Image.new("P", (20, 20)).save(data / "one.gif")
    assert process_image("one.gif", [SMALLER])["format"] == "PNG"


def test_a_photo_taken_sideways_stands_upright_and_tells_no_place(data: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    Image.open(data / "images" / "flag.jpg").save(data / "sideways.jpg", exif=exif)
    result = result_of(data, {"type": "thumbnail"}, image="sideways.jpg")
    assert result.size == (80, 120)
    assert [colour(result, 40, 5), colour(result, 40, 115)] == ["red", "blue"]
    assert not result.getexif()


@pytest.mark.parametrize("orientation", [0, *range(1, 9), 99])
def test_each_way_to_hold_the_camera_is_undone(data: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(data / "images" / "flag.jpg").save(data / "photo.jpg", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(data / "photo.jpg"))
    result = result_of(data, {"type": "thumbnail"}, {"type": "format", "format": "PNG"}, image="photo.jpg")
    assert result.tobytes() == upright.tobytes()


TIFF = b"MM\0*\0\0\0\x08"  # how the notes begin


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(
    "notes",
    [
        b"",
        TIFF[:3],
        TIFF[:7],
        TIFF,
        TIFF + b"\0\x05\x01\x12",
        b"no notes at all",
        b"II*\0\xff\xff\xff\xff",
        bytes(40),
    ],
    ids=repr,
)
def test_damaged_notes_of_the_camera_do_not_matter(data: Path, suffix: str, notes: bytes):
    Image.open(data / "images" / "flag.png").save(
        data / f"photo{suffix}", exif=b"Exif\0\0" + notes, quality=95
    )
    result = result_of(data, "thumbnail", image=f"photo{suffix}")
    assert (result.size, colour(result, 10, 10), colour(result, 110, 70)) == ((120, 80), "red", "blue")


def test_one_broken_note_does_not_hide_how_the_camera_was_held(data: Path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x013B] = "a note", 6, "a name" * 10
    Image.open(data / "images" / "flag.jpg").save(data / "photo.jpg", exif=exif)
    text, number = b"\x01\x0e\x00\x02", b"\x01\x0e\x00\x0b"
    whole = (data / "photo.jpg").read_bytes()
    assert text in whole
    (data / "photo.jpg").write_bytes(whole.replace(text, number))  # the note now claims to be a number
    assert result_of(data, "thumbnail", image="photo.jpg").size == (80, 120)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_goes_with_the_picture(data: Path, mode: str, image_format: str):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (120, 80), "red").convert(mode).save(data / "profile.png", icc_profile=profile)
    every: list[OperationForm] = [
        "resize",
        "crop",
        *({"type": "filter", "name": name} for name in (*FILTERS, "grayscale")),
    ]
    every += ["rotate", {"type": "rotate", "degrees": 5}, "thumbnail", {"type": "watermark", "text": "a"}]
    result = result_of(data, *every, {"type": "format", "format": image_format}, image="profile.png")
    assert result.info["icc_profile"] == profile


@pytest.mark.parametrize(("mode", "alpha"), [("L", 255), ("LA", 90)])
def test_a_grey_picture_gets_the_colours_that_its_profile_means(data: Path, mode: str, alpha: int):
    grey = Image.new("L", (20, 20), 128).convert(mode)
    if mode == "LA":
        grey.putalpha(alpha)
    grey.save(data / "grey.png", icc_profile=linear_profile("GRAY"))
    result = result_of(data, "thumbnail", image="grey.png")
    assert result.convert("RGBA").getpixel((9, 9)) == (
        188,
        188,
        188,
        alpha,
    )  # half of the light is 188 in sRGB
    assert "icc_profile" not in result.info


def test_inks_get_the_colours_that_their_profile_means(data: Path):
    Image.new("CMYK", (20, 20), (255, 0, 0, 0)).save(data / "print.jpg", icc_profile=ink_profile())
    assert (
        colour(result_of(data, "thumbnail", image="print.jpg"), 9, 9) == "red"
    )  # this printer's cyan is red
    Image.new("CMYK", (20, 20), (255, 0, 0, 0)).save(data / "plain.jpg")
    assert colour(result_of(data, "thumbnail", image="plain.jpg"), 9, 9) != "red"


def test_a_sheet_shows_each_image_by_its_own_profile(data: Path):
    page = Image.new("RGB", (100, 100), (128, 128, 128))
    page.save(data / "linear.png", icc_profile=linear_profile("RGB"))
    page.save(data / "plain.png")
    sheet = contact_sheet(["linear.png", "plain.png"], "sheet.png")
    with Image.open(data / sheet["path"]) as image:
        assert [image.getpixel((x, 120)) for x in (120, 360)] == [(188, 188, 188), (128, 128, 128)]


def linear_profile(space: str) -> bytes:
    """A profile for numbers that count light: 128 is half of it. In sRGB that is 188."""
    linear = struct.pack(">4sII", b"curv", 0, 0)
    columns = {
        b"rXYZ": (0.4361, 0.2225, 0.0139),
        b"gXYZ": (0.3851, 0.7169, 0.0971),
        b"bXYZ": (0.1431, 0.0606, 0.7141),
    }
    if space == "GRAY":
        return icc_profile(space, b"XYZ ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": linear})
    tags = {name: xyz(*column) for name, column in columns.items()}
    return icc_profile("RGB ", b"XYZ ", tags | dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], linear))


def ink_profile() -> bytes:
    """A profile for a printer that puts red where other printers put cyan."""
    identity = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    straight = bytes(range(256))
    paper, red = (255, 128, 128), (140, 200, 190)  # L*, a*, b*, each as one byte
    grid = b"".join(bytes(red if inks & 8 else paper) for inks in range(16))  # each of 4 inks: none or all
    table = struct.pack(">4sI4B", b"mft1", 0, 4, 3, 2, 0) + identity + 4 * straight + grid + 3 * straight
    return icc_profile("CMYK", b"Lab ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"A2B0": table})


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def icc_profile(space: str, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A colour profile of version 2 with these tags, byte by byte as the ICC's specification lays it out."""
    tags = {name: content + bytes(-len(content) % 4) for name, content in tags.items()}
    place = 132 + 12 * len(tags)
    index, contents = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        index += name + struct.pack(">2I", place + len(contents), len(content))
        contents += content
    header = struct.pack(
        ">I4sI4s4s4s12x4s",
        132 + len(index) - 4 + len(contents),
        b"",
        0x02400000,
        b"prtr",
        space.encode(),
        connection,
        b"acsp",
    )
    header = header.ljust(68, b"\0") + xyz(0.9642, 1.0, 0.8249)[8:]  # the light: D50
    return header.ljust(128, b"\0") + index + contents


def test_a_profile_that_is_damaged_and_a_comment_are_left_out(data: Path):
    for mode in ("CMYK", "RGB", "L"):
        Image.new(mode, (20, 20)).save(data / "print.jpg", icc_profile=b"for ink", comment="from home")
        assert {"icc_profile", "comment"}.isdisjoint(result_of(data, SMALLER, image="print.jpg").info)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", (255, 255, 255, 255)),
        ("L", (76, 76, 76, 255)),
        ("LA", (76, 76, 76, 90)),
        ("P", (255, 0, 0, 255)),
        ("RGB", (255, 0, 0, 255)),
        ("RGBA", (255, 0, 0, 90)),
        ("CMYK", (255, 0, 0, 255)),
        ("YCbCr", (254, 0, 0, 255)),
    ],
)
def test_every_usual_kind_of_pixels_is_read(data: Path, mode: str, expected: tuple[int, ...]):
    name = "pixels.jpg" if mode in ("CMYK", "YCbCr") else "pixels.png"
    image = Image.new("RGB", (40, 40), "red")
    if mode in ("LA", "RGBA"):
        image.putalpha(90)
    image.convert(mode, dither=Image.Dither.NONE).point(lambda v: v if mode != "1" else 255).save(
        data / name, quality=100
    )
    assert (
        result_of(data, "rotate", {"type": "format", "format": "PNG"}, image=name)
        .convert("RGBA")
        .getpixel((20, 20))
        == expected
    )


def test_a_transparent_colour_of_a_palette_stays_transparent(data: Path):
    flag = Image.open(data / "images" / "flag.png").quantize(2)
    red = flag.getpixel((10, 10))
    flag.save(data / "palette.png", transparency=red)
    flag.save(data / "palette.gif", transparency=red)
    for name in ("palette.png", "palette.gif"):
        alpha = result_of(data, "thumbnail", image=name).getchannel("A")
        assert [alpha.getpixel((10, 10)), alpha.getpixel((100, 10))] == [0, 255]


def test_a_progressive_photo_is_read(data: Path):
    Image.open(data / "images" / "flag.png").save(data / "progressive.jpg", progressive=True, quality=95)
    result = result_of(data, "thumbnail", image="progressive.jpg")
    assert [colour(result, 10, 10), colour(result, 110, 70)] == ["red", "blue"]


def test_sixteen_bits_of_grey_become_eight(data: Path):
    deep = Image.new("I;16", (2, 1), 65535)
    deep.putpixel((0, 0), 32768)
    deep.save(data / "deep.png")
    result = result_of(data, "thumbnail", image="deep.png")
    assert [result.getpixel((x, 0)) for x in (0, 1)] == [(128, 128, 128), (255, 255, 255)]


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        ([], "operations=\\[\\]: list should have at least 1 item"),
        ([SMALLER] * 21, "list should have at most 20 items"),
        (
            ["resize", "swirl"],
            "operations\\[1\\]='swirl': use one of 'resize', 'crop', 'filter', 'rotate', 'thumb",
        ),
        ([{"type": "swirl"}], "operations\\[0\\]={'type': 'swirl'}: use one of 'resize', 'crop', 'filter'"),
        ([{"width": 5}], "operations\\[0\\]={'width': 5}: type is missing"),
        ([["resize"]], "operations\\[0\\]=\\['resize'\\]: input should be a valid dictionary"),
        ("resize", "operations='resize': input should be a valid list"),
        (
            ["rotate", "watermark"],
            'operations\\[1\\]=.*: text is missing; write {"type": "watermark", "text": …}',
        ),
        (
            ["format"],
            'operations\\[0\\]=\'format\': format is missing; write {"type": "format", "format": …}',
        ),
        ([{"type": "format"}], "operations\\[0\\]={'type': 'format'}: format is missing"),
        (
            [SMALLER, {"type": "resize", "widht": 5}],
            "operations\\[1\\]=.*: resize has no parameter 'widht'; it has width",
        ),
        ([{"type": "resize", "width": 0}], "operations\\[0\\].width=0: .*greater than or equal to 1"),
        ([{"type": "resize", "width": "60"}], "operations\\[0\\].width='60': .*valid integer"),
        (
            [{"type": "resize", "width": 16383, "height": 16383}],
            "\\[0\\]='resize': 16383 x 16383 pixels; at most",
        ),
        ([{"type": "resize", "width": 16383}], "16383 x 10922 pixels; at most 51,000,000"),
        (
            [{"type": "crop", "left": 100, "width": 30, "height": 9}],
            "\\[0\\]='crop': x=130, .*120 x 80 pixels",
        ),
        ([{"type": "crop", "left": -1, "width": 3, "height": 9}], "operations\\[0\\].left=-1"),
        (
            [{"type": "crop", "left": 10}],
            "operations\\[0\\]={.*'left': 10.*}: give width and height, or no parameter",
        ),
        ([{"type": "filter", "name": "oil"}], "operations\\[0\\].name='oil': .*'grayscale'"),
        (
            [{"type": "resize", "width": 16000, "height": 1}, {"type": "rotate", "degrees": 45}],
            "operations\\[1\\]='rotate': 11314 x 11314",
        ),
        ([{"type": "rotate", "degrees": float("nan")}], "operations\\[0\\].degrees=nan"),
        ([{"type": "watermark", "text": ""}], "operations\\[0\\].text=''"),
        ([{"type": "watermark", "text": "水印"}], "operations\\[0\\].text='水印'"),
        ([{"type": "watermark", "text": "a\n"}], "operations\\[0\\].text='a\\\\n'"),
        ([{"type": "watermark", "text": "  "}], "operations\\[0\\].text='  ': .*not only spaces"),
        ([{"type": "q" * 10**6}], "operations\\[0\\]={'type': 'qqq.*}: use one of"),
        ([{"type": "resize", "w" * 10**6: 1}], "resize has no parameter 'www"),
        ([{"type": "format", "format": "PDF"}], "operations\\[0\\].format='PDF': .*'JPEG', 'PNG' or 'WEBP'"),
        ([{"type": "format", "format": "JPEG", "quality": 0}], "operations\\[0\\].quality=0"),
    ],
)
def test_a_bad_operation_is_refused_by_place_and_value(data: Path, operations: list[Any], text: str):
    with pytest.raises(ValueError, match=text) as refused:
        process_image("images/flag.png", operations)
    assert len(str(refused.value)) < 600
    assert outputs(data) == []


def test_an_enormous_image_is_refused_before_it_is_decoded(data: Path):
    for side, text in [
        (9000, "9000 x 9000 pixels; at most 51,000,000"),
        (60000, "far more pixels than the 51"),
    ]:
        (data / "bomb.png").write_bytes(png_of_nothing(side))
        with pytest.raises(ValueError, match=f"image_path='bomb.png': .*{text}"):
            process_image("bomb.png", [SMALLER])
    assert outputs(data) == []


def png_of_nothing(side: int) -> bytes:
    """A few bytes that promise `side` x `side` pixels."""
    header = b"IHDR" + struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_image_is_refused(data: Path, image_format: str):
    path = data / f"half.{image_format.lower()}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path, image_format)
    whole = path.read_bytes()
    for size in [0, 10, len(whole) // 2, len(whole) - 200]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"image_path='{path.name}': "):
            process_image(path.name, [SMALLER])
    assert outputs(data) == []


def test_an_image_named_for_another_format_is_refused(data: Path):
    (data / "images" / "flag.jpg").rename(data / "images" / "flag.webp")
    with pytest.raises(
        ValueError, match=r"'images/flag.webp': named WEBP, but it is JPEG; give it its right"
    ):
        process_image("images/flag.webp", [SMALLER])


def test_a_text_named_png_is_refused(data: Path):
    (data / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"image_path='text.png': not an image"):
        process_image("text.png", [SMALLER])


def test_a_format_that_starts_another_program_is_not_even_recognised(data: Path):
    Image.new("RGB", (20, 20)).save(data / "trap.png", "EPS")
    with pytest.raises(ValueError, match=r"image_path='trap.png': not an image"):
        process_image("trap.png", [SMALLER])


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_an_animated_image_is_refused(data: Path, image_format: str):
    frames = [Image.new("RGB", (20, 20), name) for name in ("red", "blue")]
    name = f"moving.{image_format.lower()}"
    frames[0].save(data / name, image_format, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=f"image_path='{name}': animated"):
        process_image(name, [SMALLER])
    assert outputs(data) == []


def test_a_phone_photo_with_a_second_picture_is_a_photo(data: Path):
    second = Image.new("RGB", (12, 8))
    Image.open(data / "images" / "flag.jpg").save(
        data / "two.jpg", "MPO", save_all=True, append_images=[second]
    )
    assert process_image("two.jpg", [SMALLER])["format"] == "JPEG"


def test_sixteen_bits_with_a_transparent_one_are_refused(data: Path):
    Image.new("I;16", (20, 20)).save(data / "deep.png", transparency=0)
    with pytest.raises(ValueError, match=r"image_path='deep.png': .*save it with 8 bits"):
        process_image("deep.png", [SMALLER])


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x24ftypheix\0\0\0\0mif1heix", "HEIC"),
        (b"\0\0\0\x24ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "AVIF"),
        (b"8BPS\0\1", "PSD"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=", "SVG"),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".heic"])
def test_what_only_has_the_name_of_an_image_is_called_what_it_is(
    data: Path, beginning: bytes, name: str, suffix: str
):
    (data / f"photo{suffix}").write_bytes(beginning.ljust(2000, b"\0"))
    with pytest.raises(
        ValueError, match=f"'photo{suffix}': it is {name}, which is not read here; save it as JPEG or"
    ):
        process_image(f"photo{suffix}", [SMALLER])


@pytest.mark.parametrize("image_format", ["TIFF", "BMP", "AVIF", "JPEG2000"])
def test_an_image_of_a_kind_that_is_not_read_is_called_what_it_is(data: Path, image_format: str):
    Image.open(data / "images" / "flag.png").save(data / "photo.jpg", image_format)
    with pytest.raises(ValueError, match=f"'photo.jpg': it is {image_format[:4]}.*; save it as JPEG or PNG"):
        process_image("photo.jpg", [SMALLER])


def test_a_palette_image_without_its_palette_is_refused_as_broken(data: Path):
    """Found by changing bytes of real images: Pillow ends with an AssertionError."""
    Image.open(data / "images" / "flag.png").quantize(2).save(data / "palette.png")
    whole = (data / "palette.png").read_bytes()
    begin = whole.index(b"PLTE") - 4
    end = begin + int.from_bytes(whole[begin : begin + 4]) + 12
    (data / "palette.png").write_bytes(whole[:begin] + whole[end:])
    with pytest.raises(
        ValueError, match=r"image_path='palette.png': broken \(AssertionError\); save it again"
    ):
        process_image("palette.png", [SMALLER])


@pytest.mark.parametrize(
    "path", ["../flag.png", "/etc/passwd", "images/../../flag.png", "images/link.png", ""]
)
def test_a_path_outside_the_data_folder_is_refused(data: Path, path: str):
    (data / "images" / "link.png").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="inside") as refused:
        process_image(path, [SMALLER])
    assert str(refused.value).startswith(f"image_path={path!r}: ")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "images/none.png",
            "no such file in .*; there are images/flag.jpg, images/flag.png; copy the image there",
        ),
        ("none.png", "no such file in .*; there are images/; copy"),
        ("imgs/flag.png", "no such file in .*; there are images/; copy"),
        ("images", "no such file"),
        ("notes.txt", "not the name of an image; use one of .jpg, .jpeg, .png, .webp, .gif"),
    ],
)
def test_what_is_missing_or_no_image_is_refused(data: Path, path: str, text: str):
    (data / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=f"image_path='{path}': {text}"):
        process_image(path, [SMALLER])


def test_a_file_that_is_too_large_is_refused_before_it_is_read(data: Path):
    (data / "large.jpg").write_bytes((data / "images" / "flag.jpg").read_bytes())
    os.truncate(data / "large.jpg", MAX_FILE_BYTES + 1)
    with pytest.raises(
        ValueError, match=r"image_path='large.jpg': 250,000,001 bytes; at most 250,000,000 are"
    ):
        process_image("large.jpg", [SMALLER])


def test_a_webp_that_would_need_too_much_memory_is_refused(data: Path):
    Image.new("1", (5001, 4000)).save(data / "large.png")
    operations = [{"type": "format", "format": "WEBP"}]
    with pytest.raises(
        ValueError, match=r"'large.png': 5001 x 4000 pixels; at most 20,000,000 fit into a WEBP"
    ):
        process_image("large.png", operations)
    assert process_image("large.png", ["resize", *operations])["format"] == "WEBP"


# --- memory ---

MEMORY = """
import json, pathlib, re, resource, sys
from services.images import process_image

def peak():
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux getrusage() knows the peak of the parent too: a new process begins with it.
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

path, *runs = json.loads(sys.argv[1])
for operations in runs:  # what is loaded once is no matter
    process_image("images/flag.png", [step for step in operations if "width" not in step] or ["thumbnail"])
before = peak()
for operations in runs:
    process_image(path, operations)
    print(peak() - before)
"""


def bytes_a_pixel(data: Path, path: str, *runs: list[OperationForm]) -> list[float]:
    """Process an image in a new process, and return the peak of memory after each run, for a pixel of it."""
    command = [sys.executable, "-W", "error", "-c", MEMORY, json.dumps([path, *runs])]
    # The allocator keeps some freed blocks of this size. Those of a large picture it gives back.
    environment = os.environ | {"DATA_DIR": str(data), "MALLOC_MMAP_THRESHOLD_": "1000000"}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert child.returncode == 0, child.stderr
    with Image.open(data / path) as image:
        return [int(peak) / (image.width * image.height) for peak in child.stdout.split()]


def shades(mode: str, width: int, height: int) -> Image.Image:
    upright, around = Image.linear_gradient("L"), Image.radial_gradient("L")
    bands = [band.resize((width, height)) for band in (upright, around, upright, around)]
    return Image.merge(mode, bands[: len(mode)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_operation_needs_at_most_four_copies_of_the_picture(data: Path, mode: str):
    shades(mode, 1500, 1500).save(data / "shades.png", compress_level=1)
    jpeg = {"type": "format", "format": "JPEG"}
    operations: list[OperationForm] = [
        *["thumbnail", "rotate", "crop", "resize"],
        *({"type": "filter", "name": name} for name in [*FILTERS, "grayscale"]),
        {"type": "rotate", "degrees": 1},
        {"type": "watermark", "text": "learn"},
        {"type": "resize", "width": 7500, "height": 300},
        {"type": "resize", "width": 1505, "height": 1490},
    ]
    peaks = bytes_a_pixel(data, "shades.png", *([operation, jpeg] for operation in operations))
    for operation, peak in zip(operations, peaks, strict=True):
        assert peak < 17, operation
    assert max(peaks) > 11  # or the comment on the limit promises too little


def test_a_high_image_made_wide_needs_no_more(data: Path):
    Image.new("RGB", (250, 16000)).save(data / "high.png")
    wide: OperationForm = {"type": "resize", "width": 16000, "height": 1}
    assert max(bytes_a_pixel(data, "high.png", [wide])) < 17


@pytest.mark.parametrize("name", ["photo.jpg", "sideways.jpg", "ink.jpg", "glass.webp", "deep.png"])
def test_reading_an_image_needs_at_most_four_copies_of_it(data: Path, name: str):
    exif = Image.Exif()
    exif[0x0112] = 6 if name == "sideways.jpg" else 1
    image = shades("RGBA" if name == "glass.webp" else "RGB", 1500, 1500)
    image = image.convert({"ink.jpg": "CMYK", "deep.png": "I;16"}.get(name, image.mode))
    image.save(data / name, exif=exif, progressive=True, icc_profile=ink_profile())
    assert max(bytes_a_pixel(data, name, ["thumbnail"])) < 17


def test_writing_a_webp_needs_at_most_42_bytes_a_pixel(data: Path):
    grain = Image.effect_noise((2000, 2000), 90)  # the worst case, because it cannot be compressed
    Image.merge("RGBA", [grain] * 4).save(data / "noise.png", compress_level=1)
    [peak] = bytes_a_pixel(data, "noise.png", [{"type": "format", "format": "WEBP"}])
    assert 17 < peak < 44


def test_the_limits_keep_a_picture_below_one_gigabyte():
    assert (16 * MAX_PIXELS, 42 * MAX_WEBP_PIXELS) == (816_000_000, 840_000_000)


@pytest.mark.slow
def test_the_largest_picture_needs_less_than_one_gigabyte(data: Path):
    shades("RGBA", 8192, 6144).save(data / "shades.png", compress_level=1)
    jpeg = {"type": "format", "format": "JPEG"}
    peaks = bytes_a_pixel(data, "shades.png", ["filter", jpeg], [{"type": "resize", "width": 8185}, jpeg])
    assert max(peaks) * 8192 * 6144 < 840_000_000


FULL_DISK = """
from services.images import process_image
process_image("images/flag.png", [{"type": "resize", "width": 2000}, {"type": "format", "format": "WEBP"}])
"""


def test_a_full_disk_in_the_middle_of_a_write_leaves_nothing(data: Path):
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK],
        cwd=ROOT,
        env=os.environ | {"DATA_DIR": str(data)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "OSError: [Errno 27] File too large" in child.stderr
    assert outputs(data) == []


def test_a_contact_sheet_shows_every_image(data: Path):
    sheet = contact_sheet(["images/flag.png", "images/flag.jpg", "images/flag.png"], "sheet.png")
    assert sheet["path"] == "out/sheet.png"
    with Image.open(data / sheet["path"]) as image:
        assert image.size == (sheet["width"], sheet["height"]) == (480, 528)
        centres = [(120, 120), (360, 120), (120, 384), (360, 384)]
        seen = [(colour(image, x - 40, y), colour(image, x + 40, y)) for x, y in centres]
    assert seen == [("red", "blue")] * 3 + [("white", "white")]


@pytest.mark.parametrize(
    ("images", "output", "text"),
    [
        ([], "sheet.jpg", "image_paths=\\[\\]: a contact sheet needs at least one image"),
        (["images/flag.png"], "../sheet.jpg", "output='../sheet.jpg': '..' is not allowed"),
        (["images/flag.png"], "/etc/sheet.jpg", "output='/etc/sheet.jpg': leads outside"),
        (["images/flag.png"], "sheet.gif", "output='sheet.gif': cannot be written; end it with .jpg"),
        (["images/flag.png", "images/none.png"], "sheet.jpg", "image_path='images/none.png': no such file"),
        (
            ["images/flag.png"] * 2000,
            "sheet.jpg",
            "image_paths has 2,000 images, and the sheet 10800 x 11880",
        ),
        (["images/flag.png"], "folder.jpg", "output='folder.jpg': folders and files of these names exist"),
        (["images/flag.png"], "file.jpg/sheet.jpg", "output='file.jpg/sheet.jpg': folders and files"),
    ],
)
def test_a_bad_contact_sheet_is_refused(data: Path, images: list[str], output: str, text: str):
    (data / "out" / "folder.jpg").mkdir(parents=True)
    (data / "out" / "file.jpg").touch()
    with pytest.raises(ValueError, match=text):
        contact_sheet(images, output)
    assert outputs(data) == [data / "out" / "file.jpg"]


def test_the_images_of_a_folder_are_listed_in_order(data: Path):
    (data / "images" / "notes.txt").write_text("hello")
    (data / "images" / "LOUD.JPG").touch()
    (data / "images" / "folder.png").mkdir()
    assert list_images("images") == ["images/LOUD.JPG", "images/flag.jpg", "images/flag.png"]
    assert list_images("images/") == list_images("images")
    assert list_images("images/folder.png") == []


@pytest.mark.parametrize(
    ("folder", "text"),
    [("none", "no such folder in .*; there are images/"), ("..", "not allowed"), ("/etc", "outside")],
)
def test_a_folder_that_is_missing_or_outside_is_refused(data: Path, folder: str, text: str):
    with pytest.raises(ValueError, match=text):
        list_images(folder)


def test_the_sample_images_of_the_project_can_all_be_processed(data: Path):
    samples = sorted((ROOT / "data" / "images").iterdir())
    assert [sample.name for sample in samples] == ["badge.png", "photo1.jpg", "photo2.jpg", "photo3.jpg"]
    for sample in samples:
        (data / sample.name).write_bytes(sample.read_bytes())
        assert result_of(data, {"type": "thumbnail", "size": 90}, image=sample.name).width == 90
