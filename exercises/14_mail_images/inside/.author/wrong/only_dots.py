"""it read a file outside of its folder"""

from pathlib import Path

from PIL import Image

from celery_app import app
from services.paths import inside
from settings import settings


@app.task
def thumbnail(name: str) -> list[int]:
    """Make a small image of `name` in the folder images. Return its width and height in pixels."""
    if ".." in name:
        raise ValueError(name)
    source = settings.data_dir / "images" / name
    target = settings.data_dir / "thumbnails" / Path(name).name
    target.parent.mkdir(exist_ok=True)
    with Image.open(source) as image:
        image.thumbnail((100, 100))
        image.save(target)
        return list(image.size)
