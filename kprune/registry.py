"""The one way to plug something into kprune.

A family is a kind of part: `"schedules"`, `"criteria"`, `"granularities"`,
`"scopes"`, `"formats"` hold classes by name; `"prunable"` holds rules by layer
type. `register` adds to a family, `get` turns what a user wrote (a name, a
config or an object) into an object, `lookup` finds the rule of a layer type.
"""

import inspect
import re

from keras import saving

_PACKAGE = "kprune"
_families = {}


def snake_case(name):
    """Returns the registered name of a class name.

    Args:
        name: String, a class name such as `"PolynomialSchedule"`.

    Returns:
        The name in snake case.

    Example:
    >>> snake_case("LayerWise")
    'layer_wise'
    """
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def register(family, key=None):
    """Returns a decorator that adds a class or a rule to a family.

    A class becomes known under its snake-case name and to Keras serialisation
    as `kprune>ClassName`, so that files which mention it load without
    `custom_objects`. A rule for a layer type is registered with that type as
    `key` and stays the plain function or class that it is.

    Args:
        family: String, the family to add to.
        key: A name that replaces the snake-case one, or a layer type.

    Returns:
        A decorator that returns what it was given.

    Raises:
        ValueError: If the key is taken by something else.

    Example:
    >>> from kprune.criteria import Criterion
    >>> @register("criteria")
    ... class SmallestFirst(Criterion):
    ...     def __call__(self, weight):
    ...         return -abs(weight)
    >>> get("criteria", "smallest_first")
    SmallestFirst()
    """

    def decorator(entry):
        entries = _families.setdefault(family, {})
        name = snake_case(entry.__name__) if key is None else key
        taken = entries.get(name)
        if taken is not None and _origin(taken) != _origin(entry):
            raise ValueError(
                f"{name!r} is already registered in {family!r} by {taken!r}. "
                "Choose another name, or another key."
            )
        if isinstance(entry, type) and not isinstance(key, type):
            saving.register_keras_serializable(package=_PACKAGE)(entry)
        entries[name] = entry
        return entry

    return decorator


def _origin(entry):
    return entry.__module__, entry.__qualname__


def keys(family):
    """Returns the registered keys of a family, in the order of registration.

    Args:
        family: String, the family.

    Returns:
        List of names (or of layer types, for families of rules).

    Example:
    >>> "element" in keys("granularities")
    True
    """
    return list(_families.get(family, {}))


def lookup(family, key):
    """Returns a rule: that of a name, or of a layer type or its nearest base class.

    Args:
        family: String, a family of rules.
        key: A string or a class.

    Returns:
        The rule, or `None` if there is none.

    Example:
    >>> lookup("prunable", int) is None
    True
    """
    entries = _families.get(family, {})
    known = key.__mro__ if isinstance(key, type) else (key,)
    return next((entries[k] for k in known if k in entries), None)


def get(family, identifier):
    """Returns the object that a name, a config or an object stands for.

    Args:
        family: String, the family to look in.
        identifier: A registered name (`"magnitude"`), the result of
            `keras.saving.serialize_keras_object`, or an object of the family,
            which is returned as it is.

    Returns:
        An instance of one of the family's classes.

    Raises:
        ValueError: If the name is unknown or the object is of another kind.

    Example:
    >>> get("criteria", "magnitude")
    Magnitude()
    """
    entries = _families.get(family, {})
    if isinstance(identifier, str) and identifier in entries:
        return _with_defaults(family, identifier, entries[identifier])
    if isinstance(identifier, dict):
        identifier = saving.deserialize_keras_object(identifier)
    # A class of the user's need not be registered, only be of the family's kind.
    kinds = tuple(
        next((c for c in entry.__mro__ if Configurable in c.__bases__), entry)
        for entry in entries.values()
    )
    if isinstance(identifier, kinds):
        return identifier
    hint = ""
    if isinstance(identifier, type):
        name = identifier.__name__
        hint = f" {name} is a class: pass an object of it, `{name}(...)`."
    raise ValueError(
        f"{identifier!r} is none of the registered {family}: "
        f"{', '.join(map(repr, entries))}. Pass one of these names, an object of "
        f"such a class, or the config of one.{hint}"
    )


def _with_defaults(family, name, cls):
    needed = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            f"{name!r} of {family!r} can't be used by its name alone, since it needs "
            f"{', '.join(needed)}. Pass an object: {cls.__name__}(...)."
        )
    return cls()


class Configurable:
    """Base of the small objects that a family holds: config in, config out.

    A subclass stores each constructor argument under its own name; `get_config`
    returns them all, so that `from_config(get_config())` loses nothing. Two
    objects of one class are equal if their configs are.

    Example:
    >>> from kprune import ConstantSchedule
    >>> schedule = ConstantSchedule(0.5, begin_step=10)
    >>> ConstantSchedule.from_config(schedule.get_config()) == schedule
    True
    """

    def get_config(self):
        """Returns all constructor arguments, by name."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Returns the object whose `get_config` gave `config`."""
        return cls(**config)

    def __eq__(self, other):
        return type(other) is type(self) and other.get_config() == self.get_config()

    def __hash__(self):
        return hash((type(self), repr(sorted(self.get_config().items()))))

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
