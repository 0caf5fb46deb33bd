"""Small images."""

from pathlib import Path

from PIL import Image

from celery_app import app
from services.paths import inside
from settings import settings


@app.task
def thumbnail(name: str) -> list[int]:
    """Make a small image of `name` in the folder images. Return its width and height in pixels."""
    # TODO 2: a name may be any path.
    source = settings.data_dir / "images" / name
    target = settings.data_dir / "thumbnails" / name
    target.parent.mkdir(exist_ok=True)
    # TODO 1: keep the proportions.
    with Image.open(source) as image:
        small = image.resize((100, 100))
        small.save(target)
        return list(small.size)
