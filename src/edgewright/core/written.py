"""What people write as one text, on a command line or in a file: several names or numbers with commas between."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo


def _listed(value: Any) -> Any:
    """A text at its commas; anything else as it is."""
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _numbers(number: type[int] | type[float], what: str) -> Callable[[Any, ValidationInfo], Any]:
    def read(value: Any, info: ValidationInfo) -> Any:
        try:
            return tuple(number(word) for word in value.split(",")) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(f"{info.field_name} takes {what} with commas between, not '{value}'") from None

    return read


def _shapes(value: Any, info: ValidationInfo) -> Any:
    """A shape, or shapes by the names of inputs."""
    read = _numbers(int, "whole numbers")
    if not isinstance(value, str) or "=" not in value:
        return read(value, info)
    parts = (part.rpartition("=") for part in value.split(";") if part.strip())
    return {name.strip(): read(sizes, info) for name, _, sizes in parts}


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # "taylor,fpgm"
Shapes = Annotated[  # "1,3,224,224", or "ids=1,128;mask=1,128"
    tuple[int, ...] | dict[str, tuple[int, ...]], BeforeValidator(_shapes)
]
Floats = Annotated[tuple[float, ...], BeforeValidator(_numbers(float, "numbers"))]  # "0.5,0.5,0.5"
