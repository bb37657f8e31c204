"""What values of a column must fulfil beyond their type: said once, as a sentence and as a condition in Spark SQL.

NULL fulfils every condition; whether a column may be null is said beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOATING = ("double", "float")


@dataclass(frozen=True)
class Check:
    """Bounds (included) or the known values of a column; of an array those of every element.

    Attributes:
        one_of: the values that there are, for text.
        fields: of an array of structs, the checks of its fields by name.

    Example:
        >>> Check(at_least=1).words("int"), Check(at_least=1).condition("rank", "int")
        ('>= 1', '`rank` >= 1')
        >>> Check().condition("score", "double")
        "`score` > double('-Infinity') AND `score` < double('Infinity')"
    """

    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] = ()
    fields: tuple[tuple[str, Check], ...] = ()

    def words(self, type_: str) -> str:
        """The check as what follows "must be"; empty when any value of the type will do."""
        if self.fields:
            return ", ".join(f"{name} {check.words('double')}" for name, check in self.fields)
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        low, high = self.at_least, self.at_most
        finite = "finite" if element_type(type_) in FLOATING and (low is None or high is None) else ""
        if low is not None and high is not None:
            bounds = f"from {_number(low)} to {_number(high)}"
        else:
            bounds = f">= {_number(low)}" if low is not None else f"<= {_number(high)}" if high is not None else ""
        return " and ".join(filter(None, (finite, bounds)))

    def condition(self, name: str, type_: str) -> str:
        """The check in Spark SQL; empty when any value of the type will do."""
        column = f"`{name}`"
        if self.fields:
            inner = " AND ".join(check._values(f"x.`{field}`", "double") for field, check in self.fields)
            return f"forall({column}, x -> {inner})"
        if element_type(type_) == type_:
            return self._values(column, type_)
        if self.one_of:
            return f"forall({column}, x -> {self._values('x', 'string')})"
        # no lambda: these are compiled
        return self._between(f"array_min({column})", f"array_max({column})", element_type(type_))

    def _values(self, value: str, type_: str) -> str:
        if self.one_of:
            return f"{value} IN ({', '.join(map(_literal, self.one_of))})"
        return self._between(value, value, type_)

    def _between(self, least: str, greatest: str, type_: str) -> str:
        # NaN is greater than every number to Spark, so it breaks the upper bound
        low = f"{least} >= {_number(self.at_least)}" if self.at_least is not None else ""
        high = f"{greatest} <= {_number(self.at_most)}" if self.at_most is not None else ""
        if type_ in FLOATING:
            low = low or f"{least} > double('-Infinity')"
            high = high or f"{greatest} < double('Infinity')"
        return " AND ".join(filter(None, (low, high)))


ANY = Check()
FROM_0 = Check(at_least=0)
FROM_1 = Check(at_least=1)
SHARE = Check(at_least=0, at_most=1)


def element_type(type_: str) -> str:
    """The type of an array's elements, of anything else the type itself."""
    return type_[len("array<") : -1] if type_.startswith("array<") else type_


def _number(value: float | None) -> str:
    return f"{value:g}"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
