"""``dataclass(frozen=True)`` for modules of which most classes stay unused: methods are written when first needed.

``dataclasses`` compiles six methods a class, some 0.5 ms; a command names sixty classes and makes values of a few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses
    from threading import RLock

    _WRITTEN = (
        "__init__", "__repr__", "__eq__", "__hash__", "__match_args__", "__dataclass_fields__", "__dataclass_params__",
    )  # fmt: skip
    _LOCK = RLock()

    def dataclass(*, frozen):
        """Make a class a frozen dataclass, equal in all to what ``dataclasses.dataclass(frozen=True)`` makes of it."""
        if not frozen:
            raise TypeError("only frozen dataclasses are written late")
        return _defer

    class _Deferred:
        """Stands for an attribute that ``dataclasses`` writes, until somebody looks at it."""

        def __init__(self, cls, name):
            self._cls, self._name = cls, name

        def __get__(self, instance, owner):
            with _LOCK:
                if vars(self._cls)[self._name] is self:
                    _write(self._cls)
            attribute = vars(self._cls)[self._name]
            return attribute.__get__(instance, owner) if hasattr(attribute, "__get__") else attribute

    def _defer(cls):
        for name in _WRITTEN:
            if name not in vars(cls) or vars(cls)[name] is None:
                setattr(cls, name, _Deferred(cls, name))
        cls.__setattr__ = cls.__delattr__ = _refuse
        return cls

    def _write(cls):
        """Let ``dataclasses`` write the attributes for a copy of the class, and take them over one by one.

        At every moment each attribute is the deferred or the real one, so that other threads may use the class.
        """
        left_out = {"__dict__", "__weakref__", "__setattr__", "__delattr__"}
        namespace = {
            name: value for name, value in vars(cls).items() if name not in left_out and type(value) is not _Deferred
        }
        copy = dataclasses.dataclass(frozen=True)(type(cls)(cls.__name__, cls.__bases__, namespace))
        for name, value in namespace.items():
            if isinstance(value, dataclasses.Field):  # a default that is made for each value is none of the class
                delattr(cls, name)
        for name in _WRITTEN:
            if type(vars(cls).get(name)) is _Deferred:
                setattr(cls, name, vars(copy)[name])

    def _refuse(self, name, *value):
        raise dataclasses.FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")
