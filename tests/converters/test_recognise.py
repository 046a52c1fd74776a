"""Common names are recognised, and types are inferred."""

from __future__ import annotations

import pytest

from recbole_lsti.converters.recognise import infer_type, recognise, simplify


@pytest.mark.parametrize(
    ("columns", "user", "item", "time"),
    [
        (["user_id", "item_id", "timestamp"], "user_id", "item_id", "timestamp"),
        (["uid", "asin", "ts"], "uid", "asin", "ts"),
        (["userId", "movieId", "rating", "date"], "userId", "movieId", "date"),
        (["CustomerID", "Product", "Time"], "CustomerID", "Product", "Time"),
        (["customer_no", "product_code", "time_ms"], "customer_no", "product_code", "time_ms"),
        (["visitorid", "newsId", "event_time"], "visitorid", "newsId", "event_time"),
        (["reviewerID", "asin", "unixReviewTime", "reviewTime"], "reviewerID", "asin", "unixReviewTime"),
        (["time", "session", "article"], "session", "article", "time"),
    ],
)
def test_roles(columns, user, item, time):
    found = recognise(columns)
    assert (found["user"], found["item"], found["time"]) == ((user,), (item,), (time,))


def test_no_column_plays_two_roles():
    found = recognise(["event", "user", "item"])
    assert found == {"user": ("user",), "item": ("item",), "behavior": ("event",)}


def test_strangers_are_not_taken():
    assert recognise(["alpha", "beta", "itemized_tax_deductions"]) == {}


def test_date_parts():
    assert recognise(["userID", "artistID", "day", "month", "year"])["time"] == ("day", "month", "year")


def test_simplify():
    assert simplify("User-ID ") == "userid"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("price", ["1.5", "", "2e3", "-.5"], ("float", None)),
        ("zip_code", ["01234", "99999"], ("token", None)),
        ("brand_id", ["7"], ("token", None)),
        ("color", ["red", "blue"], ("token", None)),
        ("genres", ["A|B", "C"], ("token_seq", "|")),
        ("path", ["Home > Kitchen", "Home"], ("token_seq", ">")),
        ("title", ["The first of them", "And another one"], ("token_seq", None)),
        ("tags", ['["a", "b"]', "[]"], ("token_seq", None)),
        ("genres", ["['Action', 'Sci-Fi']", "[]"], ("token_seq", None)),
        ("notes", ["[sic, and so on]"], ("token", None)),
        ("empty", ["", " "], ("token", None)),
    ],
)
def test_types(name, values, expected):
    assert infer_type(name, values) == expected
