"""Looking names up, and what is said of an unknown one."""

import re

import pytest

from erddci.registry import lookup, unknown

SIZES = {"small": 1, "large": 2, "huge": 3}


@pytest.mark.parametrize(("name", "value"), SIZES.items())
def test_a_known_name_gives_what_it_stands_for(name, value):
    assert lookup(SIZES, name, "size") == value


@pytest.mark.parametrize(
    ("name", "hint"),
    [("smal", "; did you mean 'small'?"), ("larg", "; did you mean 'large'?"), ("magic", "")],
)
def test_an_unknown_name_lists_the_known_ones_and_hints_at_the_closest(name, hint):
    message = f"unknown size {name!r}: expected one of small, large, huge{hint}"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        lookup(SIZES, name, "size")


@pytest.mark.parametrize("name", ["", "Small", None, 7])
def test_only_the_very_name_will_do(name):
    with pytest.raises(ValueError, match="unknown size"):
        lookup(SIZES, name, "size")


def test_known_names_may_be_any_iterable():
    assert "expected one of a, b" in str(unknown("c", iter("ab"), "letter"))
