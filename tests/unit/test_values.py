"""A dataclass that is made late behaves as one that is made at once."""

import dataclasses
import sys
import threading

import pytest

from espwire.values import dataclass


def _make():
    @dataclass(frozen=True, kw_only=True)
    class Base:
        x: int
        tags: tuple[str, ...] = ()

    @dataclass(frozen=True, kw_only=True)
    class Child(Base):
        y: int = 2

    return Base, Child


def test_nothing_is_made_before_it_is_used():
    base, _ = _make()
    assert "__repr__" not in vars(base)
    base(x=1)
    assert "__repr__" in vars(base)


def test_instances_compare_show_hash_and_are_frozen():
    base, child = _make()
    one = child(x=1)
    assert one == child(x=1, y=2)
    assert one != child(x=1, y=3)
    assert one != base(x=1)
    assert hash(one) == hash(child(x=1))
    assert repr(one).endswith("Child(x=1, tags=(), y=2)")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 5
    with pytest.raises(TypeError, match="required keyword-only argument"):
        child()


def test_the_standard_librarys_functions_work_before_the_first_instance():
    _, child = _make()
    assert [field.name for field in dataclasses.fields(child)] == ["x", "tags", "y"]
    assert dataclasses.is_dataclass(child)
    assert dataclasses.asdict(dataclasses.replace(child(x=1), y=9)) == {"x": 1, "tags": (), "y": 9}


def test_a_subclass_that_is_no_dataclass_works():
    base, _ = _make()

    class Plain(base):
        pass

    assert Plain(x=3).x == 3


def test_defaults_by_factory_and_what_is_done_after():
    @dataclass
    class Late:
        items: list[int] = dataclasses.field(default_factory=list)
        total: int = 0

        def __post_init__(self):
            self.total = sum(self.items)

    assert Late([1, 2]).total == 3
    assert Late().items is not Late().items


def test_a_field_may_have_any_name():
    @dataclass(frozen=True)
    class Odd:
        kind: int
        cls: int = 0
        self_: int = 0

    assert Odd(kind=1, cls=2).kind == 1


def test_many_threads_may_make_the_first_instance():
    slow = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that a thread is stopped wherever it can be
    try:
        _make_in_threads()
    finally:
        sys.setswitchinterval(slow)


def _make_in_threads():
    for _ in range(200):
        _, child = _make()
        made, barrier = [], threading.Barrier(4)

        def make(child=child, made=made, barrier=barrier):
            barrier.wait()
            made.append(child(x=1))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [child(x=1)] * 4
