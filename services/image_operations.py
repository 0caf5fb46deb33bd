"""What can be done to an image, as a message says it: `["thumbnail", {"type": "rotate", "degrees": 90}]`.

An operation is its type and its parameters. The name of the type alone stands for it with its defaults. What
has no sensible default must be given: the text of a watermark, the name of a format.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.arguments import explain
from services.error_texts import shown

MAX_SIDE = 16_383  # pixels; more does not fit into a WEBP
MAX_OPERATIONS = 20
QUALITY = 85  # of JPEG and WEBP, 1 to 100

Pixels = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class _Operation(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_its_parameters(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        kind, *parameters = cls.model_fields
        for name in given.keys() - cls.model_fields.keys():
            raise ValueError(
                f"{given[kind]} has no parameter {shown(name)}; it has {' and '.join(parameters)}"
            )
        for name in parameters:
            if cls.model_fields[name].is_required() and name not in given:
                form = f'{{"{kind}": "{given[kind]}", "{name}": …}}'
                raise ValueError(f"{name} is missing; write {form}")
        return given


class Resize(_Operation):
    """To `width` by `height`. With one of them the other follows in proportion, with none both are halved."""

    type: Literal["resize"]
    width: Pixels | None = None
    height: Pixels | None = None


class Crop(_Operation):
    """Keep `width` by `height` pixels from `left` and `top`, by default the largest square in the middle."""

    type: Literal["crop"]
    left: Annotated[int, Field(ge=0)] = 0
    top: Annotated[int, Field(ge=0)] = 0
    width: Pixels | None = None
    height: Pixels | None = None

    @model_validator(mode="after")
    def _has_a_size_or_nothing(self) -> Self:
        if self.model_fields_set > {"type"} and not (self.width and self.height):
            raise ValueError("give width and height, or no parameter for the largest square in the middle")
        return self


class Filter(_Operation):
    """One of the filters by its name, by default sharpen. Transparency stays as it is."""

    type: Literal["filter"]
    name: Literal["blur", "contour", "edges", "emboss", "grayscale", "sharpen"] = "sharpen"


class Rotate(_Operation):
    """Counter-clockwise, by default a quarter turn. The image grows so that no corner is lost."""

    type: Literal["rotate"]
    degrees: Annotated[float, Field(ge=-360, le=360)] = 90.0


class Thumbnail(_Operation):
    """So that the longer side has at most `size` pixels, by default 256. It never enlarges."""

    type: Literal["thumbnail"]
    size: Pixels = 256


class Watermark(_Operation):
    """`text` in the lower right corner, as large as fits, and 60 % opaque by default."""

    type: Literal["watermark"]
    text: Annotated[str, Field(min_length=1, max_length=100)]
    opacity: Annotated[float, Field(gt=0, le=1)] = 0.6

    @field_validator("text")
    @classmethod
    def _can_be_drawn(cls, text: str) -> str:
        if not re.fullmatch("[ -~©]+", text) or text.isspace():
            raise ValueError(
                "Pillow's built-in font has the ASCII characters and ©; use these, not only spaces"
            )
        return text


class Format(_Operation):
    """Write the result as `format`. `quality` counts for JPEG and WEBP, and is 85 by default."""

    type: Literal["format"]
    format: Literal["JPEG", "PNG", "WEBP"]
    quality: Annotated[int, Field(ge=1, le=100)] = QUALITY


def _full_form(operation: Any) -> Any:
    return {"type": operation} if isinstance(operation, str) else operation


Operation = Annotated[
    Resize | Crop | Filter | Rotate | Thumbnail | Watermark | Format,
    Field(discriminator="type"),
    BeforeValidator(_full_form),
]
Operations = Annotated[list[Operation], Field(min_length=1, max_length=MAX_OPERATIONS)]
OperationForm = str | Mapping[str, Any]  # as a message says it: a name, or a type and its parameters


class _Arguments(TypedDict):
    operations: Operations


_ARGUMENTS = TypeAdapter(_Arguments)


def checked_operations(operations: Sequence[Operation | OperationForm]) -> list[Operation]:
    """Return `operations` with all their parameters.

    Raises `ValueError` that names each bad operation by its position and its value, and what is allowed.
    """
    arguments = {"operations": operations}
    try:
        return _ARGUMENTS.validate_python(arguments)["operations"]
    except ValidationError as error:
        raise ValueError(explain(error, arguments)) from None
