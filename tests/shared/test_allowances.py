"""A name may be used so often at once, and then at a steady pace. Other names do not matter."""

from shared.identity.allowances import NAMES_MAX, Allowances


def test_a_name_may_be_used_so_often_at_once_and_once_more_after_each_pause() -> None:
    allowances = Allowances(3, 10.0)
    assert [allowances.take("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowances.take("a", 10.0) for _ in range(2)] == [True, False]
    assert [allowances.take("a", 1_000.0) for _ in range(5)] == [True, True, True, False, False]


def test_a_name_does_not_use_what_another_may_use() -> None:
    allowances = Allowances(1, 10.0)
    assert [allowances.take(name, 0.0) for name in ("a", "a", "b")] == [True, False, True]


def test_only_the_names_that_were_used_last_are_remembered() -> None:
    allowances = Allowances(1, 10.0)
    assert allowances.take("first", 0.0)
    assert all(allowances.take(str(number), 0.0) for number in range(NAMES_MAX))
    assert allowances.take("first", 0.0), "it was forgotten, like one that was never used"
    assert not allowances.take(str(NAMES_MAX - 1), 0.0)
