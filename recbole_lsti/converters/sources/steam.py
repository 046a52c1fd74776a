"""Steam: reviews of games, as lines of Python literals (parsed, never evaluated)."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, seconds, sql, token, tokens, user

JSON = Format("json")
REVIEWS = Table(
    "inter",
    (
        user("username"),
        item("product_id"),
        number("play_hours", "hours?"),
        number("products", "products?"),
        token("early_access", "early_access?"),
        token("found_funny", "found_funny?"),
        token("compensation", "compensation?"),
    ),
    TimeSpec(("date",), "iso"),
    time_at=2,
    patterns=("*steam_reviews.json", "*steam_new.json"),
    format=JSON,
)
GAMES = Table(
    "item",
    (
        item("id"),
        tokens("title", "title|app_name?"),
        token("developer", "developer?"),
        token("publisher", "publisher?"),
        tokens("genres", "genres?"),
        tokens("tags", "tags?"),
        tokens("specs", "specs?"),
        sql("price", "float", 'CASE WHEN is_number("price") THEN "price" WHEN "price" ILIKE \'%free%\' THEN \'0\' END'),
        token("sentiment", "sentiment?"),
        seconds("timestamp", "release_date"),
    ),
    patterns=("*steam_games.json",),
    format=JSON,
    columns=("price?", "release_date?"),
)
SOURCES = (Source("steam", "Steam: reviews of games", (REVIEWS, GAMES), "Kang & McAuley, ICDM 2018"),)

NUMBERED = (
    user("username"),
    number("play_hours", "hours?"),
    token("products", "products?"),
    item("product_id", "product_id"),
    number("page_order", "page_order?"),
    token("early_access", "early_access?"),
    number("page", "page?"),
    token("found_funny", "found_funny?"),
    token("compensation", "compensation?"),
)
GAME_FIELDS = (
    token("app_name", "app_name?"),
    token("developer", "developer?"),
    token("early_access", "early_access?"),
    tokens("genres", "genres?"),
    item("id", "id"),
    number("metascore", "metascore?"),
    *(field for field in GAMES.fields if field.name in ("price",)),
    token("publisher", "publisher?"),
    seconds("timestamp", "release_date"),
    token("sentiment", "sentiment?"),
    tokens("specs", "specs?"),
    tokens("tags", "tags?"),
    token("title", "title?"),
)
DROP_INS = (
    DropIn(
        "steam",
        "steam",
        {"": (replace(REVIEWS, fields=NUMBERED, time_at=5), replace(GAMES, fields=GAME_FIELDS))},
        count="times",
    ),
)
