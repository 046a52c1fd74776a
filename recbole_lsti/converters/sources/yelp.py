"""Yelp Open Dataset: reviews of businesses."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, personal, seconds, token, tokens, user

JSON = Format("json")
REVIEWS = Table(
    "inter",
    (
        user("user_id"),
        item("business_id"),
        number("rating", "stars"),
        number("useful", "useful?"),
        number("funny", "funny?"),
        number("cool", "cool?"),
    ),
    TimeSpec(("date",), "iso"),
    time_at=3,
    patterns=("*yelp_academic_dataset_review.json", "review.json"),
    format=JSON,
)
BUSINESS_COLUMNS = (
    tokens("item_name", "name?"),
    tokens("address", "address?"),
    tokens("city", "city?"),
    token("state", "state?"),
    token("postal_code", "postal_code?"),
    number("latitude", "latitude?"),
    number("longitude", "longitude?"),
    number("item_stars", "stars?"),
    number("item_review_count", "review_count?"),
    number("is_open", "is_open?"),
    tokens("categories", "categories?", ","),
)
BUSINESSES = Table(
    "item",
    (item("business_id"), *BUSINESS_COLUMNS),
    patterns=("*yelp_academic_dataset_business.json", "business.json"),
    format=JSON,
)
COMPLIMENTS = ["hot", "more", "profile", "cute", "list", "note", "plain", "cool", "funny", "writer", "photos"]
USERS = Table(
    "user",
    (
        user("user_id"),
        personal("user_name", "name?"),
        number("user_review_count", "review_count?"),
        seconds("yelping_since", "yelping_since"),
        number("user_useful", "useful?"),
        number("user_funny", "funny?"),
        number("user_cool", "cool?"),
        token("elite", "elite?"),
        number("fans", "fans?"),
        number("average_stars", "average_stars?"),
        *(number(f"compliment_{name}", f"compliment_{name}?") for name in COMPLIMENTS),
    ),
    patterns=("*yelp_academic_dataset_user.json", "user.json"),
    format=JSON,
    columns=("yelping_since?",),
)
SOURCES = (Source("yelp", "Yelp Open Dataset: reviews of businesses", (REVIEWS, BUSINESSES, USERS), "Yelp Inc."),)

REVIEW_FIELDS = (
    token("review_id"),
    user("user_id"),
    item("business_id", "business_id"),
    number("stars"),
    number("useful"),
    number("funny"),
    number("cool"),
)
DROP_INS = (
    DropIn(
        "yelp",
        "yelp",
        {
            "": (
                replace(REVIEWS, fields=REVIEW_FIELDS, time=TimeSpec(("date",), "iso", name="date"), time_at=None),
                replace(BUSINESSES, fields=(item("business_id", "business_id"), *BUSINESS_COLUMNS)),
                USERS,
            )
        },
    ),
)
