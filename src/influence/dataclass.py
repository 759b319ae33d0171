"""`dataclasses.dataclass(frozen=True)`, made without compiling anything.

    from influence.dataclass import dataclass

    @dataclass(frozen=True)
    class Chunk:
        first: int
        n_tokens: int = 1

The standard library writes six functions for each class as text and compiles
them, which takes ten times as long as the rest of a class: with fifty classes a
quarter of a start. Here all classes share theirs. To a type checker it is the
standard library's, and so it is to `fields`, `replace` and `asdict`.
docs/decisions/0006-dataclasses.md has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses
    from dataclasses import MISSING, FrozenInstanceError

    def dataclass(*, frozen, eq=True):
        """A class decorator; `frozen` is True, and there to be read."""
        if not frozen:
            raise TypeError("a dataclass that changes is the standard library's")

        def decorate(kind):
            kind.__doc__ = kind.__doc__ or kind.__name__  # or the signature would be worked out for it
            kind.__init__ = _init_of(dataclasses.dataclass(init=False, repr=False, eq=False)(kind))
            for method in (__repr__, __setattr__, __delattr__, *((__eq__, __hash__) if eq else ())):
                setattr(kind, method.__name__, method)
            return kind

        return decorate

    def _init_of(kind):
        fields = kind.__dataclass_fields__
        names = tuple(fields)
        free = [frozenset(names[taken:]) for taken in range(len(names) + 1)]  # after so many by position
        defaults = {name: field.default for name, field in fields.items() if field.default is not MISSING}
        factories = [(f.name, f.default_factory) for f in fields.values() if f.default_factory is not MISSING]
        post_init = getattr(kind, "__post_init__", None)

        def __init__(self, *values, **named):
            own = self.__dict__
            own.update(defaults)
            own.update(zip(names, values, strict=False))
            own.update(named)
            for name, make in factories:
                own.setdefault(name, make())
            if len(own) != len(names) or len(values) > len(names) or not named.keys() <= free[len(values)]:
                raise TypeError(f"{kind.__name__} takes each of {', '.join(names)} once")
            if post_init is not None:
                post_init(self)

        return __init__

    def _values(self):
        own = self.__dict__
        return [own[name] for name in self.__match_args__]

    def __repr__(self):
        fields = self.__dataclass_fields__.values()
        shown = [f"{field.name}={getattr(self, field.name)!r}" for field in fields if field.repr]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other):
        return _values(self) == _values(other) if type(self) is type(other) else NotImplemented

    def __hash__(self):
        return hash(tuple(_values(self)))

    def __setattr__(self, name, value):
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name):
        raise FrozenInstanceError(f"cannot delete field {name!r}")
