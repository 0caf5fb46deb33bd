from random import randint

from PIL import Image

from lab.workshop.room import Room, Wrong

DATA = "data"


def paint(room: Room, folder: str, name: str, size: tuple[int, int]) -> None:
    path = room.folder / DATA / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "navy").save(path)


def task_1(room: Room) -> None:
    width = randint(3, 6) * 100
    for size, right in (((width, 200), [100, 20_000 // width]), ((50, 40), [50, 40])):
        paint(room, "images", "photo.png", size)
        did = f"sent thumbnail('photo.png'), an image of {size[0]} × {size[1]} pixels"
        value = room.value("thumbnail", "photo.png")
        if (
            not isinstance(value, list)
            or len(value) != 2
            or abs(value[0] - right[0]) + abs(value[1] - right[1]) > 2
        ):
            means = (
                "the proportions stay: the longer side has 100 pixels"
                if max(size) > 100
                else "a small image stays as it is"
            )
            raise Wrong(did, f"it returned {value}, not {right}", means)
        written = room.folder / DATA / "thumbnails" / "photo.png"
        if not written.exists():
            raise Wrong(did, "there is no thumbnails/photo.png", "write it there, under the same name")
        with Image.open(written) as image:
            if list(image.size) != value:
                raise Wrong(
                    did, f"thumbnails/photo.png has {image.size}", "the file and the result must say the same"
                )


def task_2(room: Room) -> None:
    paint(room, "secret", "photo.png", (30, 30))
    absolute = str(room.folder / DATA / "secret" / "photo.png")
    before = sorted(path for path in (room.folder / DATA).rglob("*") if path.is_file())
    for name in ("../secret/photo.png", absolute, "x/../../secret/photo.png"):
        outcome = room.run("thumbnail", name)
        if outcome.value == [30, 30]:
            raise Wrong(f"sent thumbnail({name!r})", str(outcome), "it read a file outside of its folder")
        if outcome.state == "SUCCESS":
            means = "the name was not refused: whoever sent it must see a ValueError"
            raise Wrong(f"sent thumbnail({name!r})", str(outcome), means)
        if "ValueError" not in outcome.error:
            means = "refuse it before you touch the file, with a ValueError that names it"
            raise Wrong(f"sent thumbnail({name!r})", str(outcome), means)
    if sorted(path for path in (room.folder / DATA).rglob("*") if path.is_file()) != before:
        raise Wrong("looked at all files", "there are new ones", "a refused name writes nothing")
