"""Kinds of classes, without what `dataclasses` and their forms in `typing` add to the time of an import."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """Tell a type checker; the interpreter needs nothing of it."""
        return lambda kind: kind

    class Protocol:
        """What a type checker alone looks at."""

    class _Fields(type):
        """Makes a `collections.namedtuple` of each class below `NamedTuple`, with its methods and defaults."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Fields):
        """What `typing.NamedTuple` is, but for its look at each annotation, which costs 0.1 ms and more a class."""


@dataclass_transform(frozen_default=True)
class Facts:
    """What a frozen dataclass is, without the 20 ms that an import of `dataclasses` and each such class cost."""

    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._names = tuple(vars(cls).get("__annotations__", ()))
        setattr(cls, "__match_args__", cls._names)  # noqa: B010  # which a type checker knows already

    def __init__(self, *args: Any, **facts: Any) -> None:
        found = self.__dict__
        found.update(zip(self._names, args), **facts)
        if len(found) != len(self._names) or len(args) + len(facts) != len(found):
            self._complete(len(args) + len(facts))

    def _complete(self, given: int) -> None:
        """Fill in defaults; say what is wrong."""
        names = self._names
        wrong = [name for name in self.__dict__ if name not in names]
        missing = [name for name in names if name not in self.__dict__ and not hasattr(type(self), name)]
        if wrong or missing or given != len(self.__dict__):
            raise TypeError(f"{type(self).__name__} takes {', '.join(names)}, each once; missing: {missing}")
        self.__dict__.update({name: getattr(self, name) for name in names})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} does not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} does not change: {name}")

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in zip(self._names, self._values()))
        return f"{type(self).__name__}({facts})"

    def _values(self) -> tuple[Any, ...]:
        return tuple([self.__dict__[name] for name in self._names])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dict."""
        return {
            name: value.to_dict() if isinstance(value, Facts) else value
            for name, value in zip(self._names, self._values())
        }
