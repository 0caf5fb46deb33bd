"""Image work on real images: what each operation does, and what is refused before anything is written."""

import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageDraw, ImageOps

from services.images import FILTERS, Filter, contact_sheet, list_images, process_image
from settings import ROOT, Settings

SMALLER: dict[str, Any] = {"type": "resize", "width": 60}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a flag of 120 x 80 pixels, red on the left and blue on the right."""
    (tmp_path / "images").mkdir()
    image = Image.new("RGB", (120, 80), (200, 30, 30))
    ImageDraw.Draw(image).rectangle((60, 0, 119, 79), (30, 30, 200))
    image.save(tmp_path / "images" / "flag.png")
    image.save(tmp_path / "images" / "flag.jpg", quality=95)
    monkeypatch.setattr("services.images.settings", Settings(data_dir=tmp_path))
    return tmp_path


def result_of(data: Path, *operations: dict[str, Any], image: str = "images/flag.png") -> Image.Image:
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


def test_broken_notes_of_the_camera_do_not_matter(data: Path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x013B] = "a note", 6, "a name" * 10
    Image.open(data / "images" / "flag.jpg").save(data / "photo.jpg", exif=exif)
    text, number = b"\x01\x0e\x00\x02", b"\x01\x0e\x00\x0b"
    whole = (data / "photo.jpg").read_bytes()
    assert text in whole
    (data / "photo.jpg").write_bytes(whole.replace(text, number))  # the note now claims to be a number
    assert result_of(data, {"type": "thumbnail"}, image="photo.jpg").size == (80, 120)


def test_a_colour_profile_goes_with_the_picture(data: Path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.open(data / "images" / "flag.png").save(data / "profile.png", icc_profile=profile)
    for image_format in ["JPEG", "PNG", "WEBP"]:
        result = result_of(data, SMALLER, {"type": "format", "format": image_format}, image="profile.png")
        assert result.info["icc_profile"] == profile


def test_what_no_longer_fits_or_tells_too_much_is_left_out(data: Path):
    Image.new("CMYK", (20, 20)).save(data / "print.jpg", icc_profile=b"for ink", comment="from home")
    assert {"icc_profile", "comment"}.isdisjoint(result_of(data, SMALLER, image="print.jpg").info)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr"])
def test_every_usual_kind_of_pixels_is_read(data: Path, mode: str):
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    Image.new("RGB", (40, 20), "red").convert(mode).save(data / f"pixels{suffix}")
    assert result_of(data, {"type": "rotate", "degrees": 5}, image=f"pixels{suffix}").mode in ("RGB", "RGBA")


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        ([], "operations=\\[\\]: List should have at least 1 item"),
        ([SMALLER] * 21, "List should have at most 20 items"),
        ([{"type": "swirl"}], "operations\\[0\\]={'type': 'swirl'}: .*'resize', 'crop', 'filter', 'rotate'"),
        ([{"width": 5}], "operations\\[0\\]={'width': 5}: .*'type'"),
        (["resize"], "operations\\[0\\]='resize': "),
        (
            [SMALLER, {"type": "resize", "widht": 5}],
            "operations\\[1\\].widht=5: resize has no such parameter",
        ),
        ([{"type": "resize"}], "operations\\[0\\]=.*: give width, height or both"),
        ([{"type": "resize", "width": 0}], "operations\\[0\\].width=0: .*greater than or equal to 1"),
        ([{"type": "resize", "width": "60"}], "operations\\[0\\].width='60': .*valid integer"),
        ([{"type": "resize", "width": 16383, "height": 16383}], "resize: 16383 x 16383 pixels; at most"),
        ([{"type": "resize", "width": 16383}], "resize: 16383 x 10922 pixels; at most 80,000,000"),
        ([{"type": "crop", "left": 100, "width": 30, "height": 9}], "crop to x=130, .*120 x 80 pixels"),
        ([{"type": "crop", "left": -1, "width": 3, "height": 9}], "operations\\[0\\].left=-1"),
        ([{"type": "filter", "name": "oil"}], "operations\\[0\\].name='oil': .*'grayscale'"),
        (
            [{"type": "resize", "width": 16000, "height": 1}, {"type": "rotate", "degrees": 45}],
            "rotate: 11314 x 11314",
        ),
        ([{"type": "rotate", "degrees": float("nan")}], "operations\\[0\\].degrees=nan"),
        ([{"type": "watermark", "text": ""}], "operations\\[0\\].text=''"),
        ([{"type": "watermark", "text": "水印"}], "operations\\[0\\].text='水印'"),
        ([{"type": "watermark", "text": "a\n"}], "operations\\[0\\].text='a\\\\n'"),
        ([{"type": "format", "format": "PDF"}], "operations\\[0\\].format='PDF': .*'JPEG', 'PNG' or 'WEBP'"),
        ([{"type": "format", "format": "JPEG", "quality": 0}], "operations\\[0\\].quality=0"),
    ],
)
def test_a_bad_operation_is_refused_by_place_and_value(data: Path, operations: list[Any], text: str):
    with pytest.raises(ValueError, match=text):
        process_image("images/flag.png", operations)
    assert outputs(data) == []


def test_an_enormous_image_is_refused_before_it_is_decoded(data: Path):
    for side, text in [(9000, "9000 x 9000 pixels; at most 80,000,000"), (60000, "decompression bomb")]:
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


def test_sixteen_bits_a_colour_are_refused(data: Path):
    Image.new("I;16", (20, 20)).save(data / "deep.png")
    with pytest.raises(ValueError, match=r"image_path='deep.png': .*save it with 8 bits"):
        process_image("deep.png", [SMALLER])


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
        ("images/none.png", "no such file in .*; copy the image there first"),
        ("images", "no such file"),
        ("notes.txt", "not the name of an image; use one of .jpg, .jpeg, .png, .webp, .gif"),
    ],
)
def test_what_is_missing_or_no_image_is_refused(data: Path, path: str, text: str):
    (data / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=f"image_path='{path}': {text}"):
        process_image(path, [SMALLER])


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
        (["images/flag.png"] * 2000, "sheet.jpg", "a sheet of 2000 images: "),
    ],
)
def test_a_bad_contact_sheet_is_refused(data: Path, images: list[str], output: str, text: str):
    with pytest.raises(ValueError, match=text):
        contact_sheet(images, output)
    assert outputs(data) == []


def test_the_images_of_a_folder_are_listed_in_order(data: Path):
    (data / "images" / "notes.txt").write_text("hello")
    (data / "images" / "LOUD.JPG").touch()
    (data / "images" / "folder.png").mkdir()
    assert list_images("images") == ["images/LOUD.JPG", "images/flag.jpg", "images/flag.png"]
    assert list_images("images/") == list_images("images")
    assert list_images("images/folder.png") == []


@pytest.mark.parametrize(
    ("folder", "text"), [("none", "no such folder"), ("..", "not allowed"), ("/etc", "outside")]
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
