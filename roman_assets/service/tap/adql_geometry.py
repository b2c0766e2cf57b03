"""ADQL's geometry as SQL: exact tests, behind what the registry's index on the sky can tell.

A geometry is a circle (a point is one without extent) or a region: an s_region polygon, given as
corners or in a column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlglot import exp

from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.registry.search.area import Area, areas_of
from roman_assets.service.request_error import UsageError

Prefilter = Callable[[exp.Column, Area], exp.Expr | None]
"""Returns the condition that a column's row lies near an area, None if its table has no places."""

PREDICATES = ("contains", "intersects")
SHAPES = frozenset({"point", "circle", "polygon", "box", "region"})
_SYSTEMS = ("", "ICRS", "UNKNOWNFRAME", "J2000", "FK5")
MOST_CORNERS = 256


@dataclass(frozen=True)
class Circle:
    """A circle, or a point if the radius is zero; expressions in degrees."""

    ra: exp.Expr
    dec: exp.Expr
    radius: exp.Expr


@dataclass(frozen=True)
class Region:
    """An s_region: a literal, or a column that has one."""

    text: exp.Expr


Geometry = Circle | Region


def function_name(node: exp.Expr) -> str:
    """Return the name of a function in lower case, empty for anything else."""
    return str(node.this).lower() if isinstance(node, exp.Anonymous) else ""


def predicate(node: exp.Anonymous, prefilter: Prefilter) -> exp.Expr:
    """Return the condition that CONTAINS or INTERSECTS states.

    Raises
    ------
    UsageError
        If its arguments are not geometries.
    """
    arguments = node.expressions
    if len(arguments) != 2:
        raise UsageError(f"{node.this} takes two geometries")
    one, other = map(geometry, arguments)
    exact = (_contains if function_name(node) == "contains" else _intersects)(one, other)
    near = [
        found
        for mine, theirs in ((one, other), (other, one))
        for column in _placed(mine)
        for area in _area(theirs)
        if (found := prefilter(column, area)) is not None
    ]
    return exp.paren(exp.and_(*near, exact)) if near else exact


def distance(node: exp.Anonymous) -> exp.Expr:
    """Return the angle between two points, deg."""
    arguments = node.expressions
    if len(arguments) == 4:
        return _call("adql_distance", arguments)
    if len(arguments) != 2:
        raise UsageError("DISTANCE takes two points or four numbers")
    points = [geometry(argument) for argument in arguments]
    if not all(isinstance(point, Circle) and _number(point.radius) == 0 for point in points):
        raise UsageError("DISTANCE takes two points")
    return _separation(*points)  # type: ignore[arg-type]


def coordinate(node: exp.Anonymous) -> exp.Expr:
    """Return COORD1 or COORD2 of a point."""
    if len(node.expressions) != 1 or not isinstance(point := geometry(node.expressions[0]), Circle):
        raise UsageError(f"{node.this} takes a point")
    return (point.ra if function_name(node) == "coord1" else point.dec).copy()


def area(node: exp.Anonymous) -> exp.Expr:
    """Return the area of a circle, square degrees."""
    if len(node.expressions) != 1 or not isinstance(
        circle := geometry(node.expressions[0]), Circle
    ):
        raise UsageError("AREA is known of circles only")
    turned = exp.Mul(
        this=exp.Literal.number(str(2 * math.pi)), expression=_one_minus_cosine(circle)
    )
    return exp.Mul(this=turned, expression=exp.Literal.number(str(math.degrees(1) ** 2)))


def geometry(node: exp.Expr) -> Geometry:
    """Read a geometry.

    Raises
    ------
    UsageError
        If it is not a geometry.
    """
    name = function_name(node)
    if isinstance(node, exp.Column):
        return Region(node)
    if name not in SHAPES:
        raise UsageError(f"{node.sql()[:60]!r} is not a geometry")
    arguments = list(_coordinates(node))
    if name == "region":
        return _of_text(node)
    if name == "point" and len(arguments) == 2:
        return Circle(arguments[0], arguments[1], exp.Literal.number("0"))
    if name == "circle" and len(arguments) == 3:
        return Circle(*arguments)
    if name == "box" and len(arguments) == 4:
        ra, dec, width, height = map(_constant, arguments)
        x, y = width / 2, height / 2
        return _polygon(
            [(ra - x, dec - y), (ra + x, dec - y), (ra + x, dec + y), (ra - x, dec + y)]
        )
    if name == "polygon" and len(arguments) >= 6 and len(arguments) % 2 == 0:
        numbers = [_constant(argument) for argument in arguments]
        return _polygon(list(zip(numbers[::2], numbers[1::2], strict=True)))
    raise UsageError(f"{node.this} has the wrong number of arguments")


def _coordinates(node: exp.Expr) -> Iterable[exp.Expr]:
    """Go through the coordinates of a shape, without the coordinate system, points taken apart."""
    for number, argument in enumerate(node.expressions):
        if isinstance(argument, exp.Literal) and argument.is_string:
            system = (str(argument.this).upper().split() or [""])[0]
            if number > 0 or (system not in _SYSTEMS and function_name(node) != "region"):
                raise UsageError(f"{node.this}: coordinates are ICRS, not {argument.this[:30]!r}")
        elif function_name(argument) == "point":
            yield from _coordinates(argument)
        else:
            yield argument


def _of_text(node: exp.Expr) -> Geometry:
    words = str(node.expressions[0].this).split() if len(node.expressions) == 1 else []
    words = [word for word in words if word.upper() not in _SYSTEMS]
    shape = words[0].lower() if words else ""
    known = {"circle": "circle", "position": "point", "polygon": "polygon", "box": "box"}
    if shape not in known:
        raise UsageError("REGION takes an STC-S circle, position, box or polygon")
    try:
        numbers = [exp.Literal.number(repr(float(word))) for word in words[1:]]
    except ValueError as error:
        raise UsageError("REGION: coordinates are numbers") from error
    return geometry(exp.Anonymous(this=known[shape], expressions=numbers))


def _polygon(corners: list[tuple[float, float]]) -> Region:
    if len(corners) > MOST_CORNERS:
        raise UsageError(f"a polygon has at most {MOST_CORNERS} corners")
    try:
        footprint = Footprint.of_region([(ra % 360, dec) for ra, dec in corners])
    except ValueError as error:
        raise UsageError(str(error)) from error
    numbers = " ".join(repr(float(number)) for number in footprint.corners.ravel())
    return Region(exp.Literal.string(f"POLYGON ICRS {numbers}"))


def _number(node: exp.Expr) -> float | None:
    """Return the value of a constant, None for anything else."""
    if isinstance(node, exp.Neg):
        value = _number(node.this)
        return None if value is None else -value
    if isinstance(node, exp.Paren):
        return _number(node.this)
    if isinstance(node, exp.Literal) and not node.is_string:
        return float(node.this)
    return None


def _constant(node: exp.Expr) -> float:
    value = _number(node)
    if value is None or not math.isfinite(value):
        raise UsageError(f"{node.sql()[:60]!r}: polygons and boxes take numbers")
    return value


def _contains(inner: Geometry, outer: Geometry) -> exp.Expr:
    if isinstance(inner, Circle) and isinstance(outer, Circle):
        reach = exp.Sub(this=outer.radius.copy(), expression=inner.radius.copy())
        return exp.LTE(this=_separation(inner, outer), expression=exp.paren(reach))
    if isinstance(inner, Circle):
        assert isinstance(outer, Region)
        return _call("region_covers_circle", [outer.text, *_parts(inner)])
    if isinstance(outer, Circle):
        return _call("circle_covers_region", [inner.text, *_parts(outer)])
    return _call("region_covers_region", [outer.text, inner.text])


def _intersects(one: Geometry, other: Geometry) -> exp.Expr:
    if isinstance(one, Circle) and isinstance(other, Circle):
        reach = exp.Add(this=one.radius.copy(), expression=other.radius.copy())
        return exp.LTE(this=_separation(one, other), expression=exp.paren(reach))
    if isinstance(one, Region) and isinstance(other, Region):
        return _call("region_meets_region", [one.text, other.text])
    circle, region = (one, other) if isinstance(one, Circle) else (other, one)
    assert isinstance(circle, Circle) and isinstance(region, Region)
    return _call("region_meets_circle", [region.text, *_parts(circle)])


def _parts(circle: Circle) -> list[exp.Expr]:
    return [circle.ra, circle.dec, circle.radius]


def _separation(one: Circle, other: Circle) -> exp.Expr:
    return _call("adql_distance", [one.ra, one.dec, other.ra, other.dec])


def _one_minus_cosine(circle: Circle) -> exp.Expr:
    cosine = _call("cos", [_call("radians", [circle.radius])])
    return exp.paren(exp.Sub(this=exp.Literal.number("1"), expression=cosine))


def _call(name: str, arguments: list[exp.Expr]) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def _placed(given: Geometry) -> list[exp.Column]:
    """Return the column that tells where a row is: its region, or the place of its centre."""
    node = given.text if isinstance(given, Region) else given.ra
    return [node] if isinstance(node, exp.Column) else []


def _area(given: Geometry) -> list[Area]:
    """Return a constant geometry as an area to search in."""
    if isinstance(given, Region):
        if isinstance(given.text, exp.Column):
            return []
        return areas_of(None, str(given.text.this))
    numbers = [_number(part) for part in _parts(given)]
    if any(number is None for number in numbers):
        return []
    ra, dec, radius = (float(number or 0) for number in numbers)
    if not (-90 <= dec <= 90 and 0 <= radius <= 180):
        raise UsageError(f"({ra}, {dec}, {radius}) is not a circle on the sky")
    return areas_of((ra % 360, dec, radius), None)
