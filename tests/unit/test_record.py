"""`Record`: values that cannot be changed, compared and shown by their fields."""

from __future__ import annotations

import copy
import pickle

import pytest

from espwire.record import Record


class Point(Record):
    x: int
    y: int = 0

    @property
    def sum(self) -> int:
        return self.x + self.y


class Named(Point):
    name: str
    tags: tuple[str, ...] = ()


def test_a_subclass_has_the_fields_of_its_base_class_first() -> None:
    assert vars(Named(name="a", x=1)) == {"x": 1, "y": 0, "name": "a", "tags": ()}
    assert list(vars(Named(name="a", x=1))) == ["x", "y", "name", "tags"]
    assert repr(Named(name="a", x=1)) == "Named(x=1, y=0, name='a', tags=())"


def test_equal_fields_are_equal_values_of_the_same_class() -> None:
    assert Point(x=1) == Point(y=0, x=1)
    assert hash(Point(x=1)) == hash(Point(y=0, x=1))
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != {"x": 1, "y": 0}

    class Other(Record):
        x: int
        y: int = 0

    assert Point(x=1) != Other(x=1)


def test_missing_and_unknown_fields_are_errors() -> None:
    with pytest.raises(TypeError, match="Point requires 'x'"):
        Point(y=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        Point(x=1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        Point(x=1).replace(z=2)


def test_a_value_cannot_be_changed() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match="Point is immutable: cannot set 'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot set 'z'"):
        point.z = 2  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="cannot delete 'x'"):
        del point.x
    assert point == Point(x=1)


def test_a_copy_may_have_other_values() -> None:
    point = Named(x=1, name="a")
    assert point.replace(y=5) == Named(x=1, y=5, name="a")
    assert point.replace(y=5).sum == 6
    assert copy.deepcopy(point) == point
    assert pickle.loads(pickle.dumps(point)) == point
