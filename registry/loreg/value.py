"""The base of the values that travel: between rooms, as JSON between a client and a server, and into OpenAPI."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, get_args, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from pydantic_core.core_schema import ValidatorFunctionWrapHandler


class Value(msgspec.Struct, frozen=True, weakref=True):
    """A frozen value of named fields: compared, hashed and shown by them, as a frozen dataclass is.

    A command makes a hundred such classes before it does anything: a dataclass takes a multiple of the time.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic, which knows no Struct, check, describe and write it as the dataclass of the same fields."""
        from pydantic_core.core_schema import (
            no_info_wrap_validator_function,
            plain_serializer_function_ser_schema,
        )

        twin = _as_dataclass(get_origin(source) or source)
        schema = handler.generate_schema(twin[get_args(source)] if get_args(source) else twin)

        def check(value: Any, check_fields: ValidatorFunctionWrapHandler) -> Value:
            return value if isinstance(value, cls) else cls(**vars(check_fields(value)))

        write = plain_serializer_function_ser_schema(
            lambda value: twin(**msgspec.structs.asdict(value)), return_schema=schema
        )
        return no_info_wrap_validator_function(check, schema, serialization=write)


@cache
def _as_dataclass(struct: type[msgspec.Struct]) -> Any:
    """Return the dataclass of the same name, fields and type variables."""
    hints = get_type_hints(struct, include_extras=True)
    fields = [(info.name, hints[info.name], _dataclass_field(info)) for info in msgspec.structs.fields(struct)]
    bases = tuple(base for base in getattr(struct, "__orig_bases__", ()) if get_origin(base) is Generic)
    twin = make_dataclass(struct.__name__, fields, bases=bases)
    for name in ("__doc__", "__module__", "__qualname__"):
        setattr(twin, name, getattr(struct, name))
    return twin


def _dataclass_field(info: msgspec.structs.FieldInfo) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return field(default_factory=info.default_factory)
    return field() if info.default is msgspec.NODEFAULT else field(default=info.default)
