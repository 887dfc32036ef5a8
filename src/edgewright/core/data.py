"""Immutable, validated values: what every plan, cost, architecture and result is made of."""

import difflib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edgewright.core.errors import BadInput


class Frozen(BaseModel):
    """A value that cannot change, refuses unknown keys, and round-trips through strict JSON (see `to_json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", populate_by_name=True)

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Validate `data`; a fault becomes one BadInput sentence that names `where` and the key."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise BadInput(f"{where}: {_sentence(cls, error)}") from None

    def to_json(self) -> str:
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


class _InOneSentence(type(BaseModel)):
    """Makes a wrong word in `Budget(latency=3)` one BadInput sentence, as it is in a file.

    Only for what people write in Python: elsewhere a wrong word is a fault of ours, whose traceback is wanted.
    """

    def __call__(cls, *arguments: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*arguments, **fields)
        except ValidationError as error:
            raise BadInput(f"{cls.__name__}: {_sentence(cast(type[BaseModel], cls), error)}") from None


if TYPE_CHECKING:  # behind a metaclass a checker would forget the fields of every class

    class Asked(Frozen): ...

else:

    class Asked(Frozen, metaclass=_InOneSentence):
        """What a person asks for, in Python or in a file."""


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    """The first fault in words; for an unknown key, with the nearest known one."""
    # An unknown key first: it is often why another one is missing.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _fields_at(cls, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{path}'; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":  # a sentence of ours, which names what it is about
        return message
    return f"'{path}': {message} (got {fault['input']!r})" if path else message


def _fields_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        field = cls.model_fields.get(str(part))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            cls = inner
    return list(cls.model_fields)


_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MARK = "'"  # before a text that would be read as one of those, were it not for the mark


def to_json(value: Any) -> str:
    """Strict JSON, which every reader reads: it has no word for infinity, so that is the text "Infinity"."""
    return json.dumps(_worded(value), allow_nan=False, separators=(",", ":"))


def to_record(value: Any) -> str:
    """The same for `from_record`, which gives back what was written: a text "NaN" is marked, so that it stays one."""
    return json.dumps(_worded(_marked(value)), allow_nan=False, separators=(",", ":"))


def from_record(text: str) -> Any:
    """What `to_record` wrote, infinities included."""
    return _unworded(json.loads(text))


def _worded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return _mapped(_worded, value)


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return _MARK + value if value.lstrip(_MARK) in _NOT_FINITE else value
    return _mapped(_marked, value)


def _unworded(value: Any) -> Any:
    if isinstance(value, str):
        marked = value.startswith(_MARK) and value.lstrip(_MARK) in _NOT_FINITE
        return value[1:] if marked else _NOT_FINITE.get(value, value)
    return _mapped(_unworded, value)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(inner) for key, inner in value.items()}
    return [change(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid JSON ({error})") from None


def read_yaml(path: Path) -> Any:
    """Safe YAML only: tags that would construct Python objects are refused."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
