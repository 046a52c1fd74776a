"""Amazon reviews: the 2014, 2018 and 2023 collections of the McAuley lab."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, sql, token, tokens, user

JSON = Format("json")
RATINGS_ONLY = Format("csv", ",", header=False, columns=("user", "item", "rating", "timestamp"))
PRICE = "nullif(regexp_extract(replace(\"price\", ',', ''), '^\\$?\\s*(\\d+(\\.\\d+)?)\\s*$', 1), '')"

REVIEWS = Table(
    "inter",
    (user("reviewerID"), item("asin"), number("rating", "overall")),
    TimeSpec(("unixReviewTime",), "s"),
    patterns=("reviews_*.json",),
    format=JSON,
)
RATINGS_2014 = Table(
    "inter",
    (user("user"), item("item"), number("rating")),
    TimeSpec(("timestamp",), "s"),
    patterns=("ratings_*.csv",),
    format=RATINGS_ONLY,
)
META_2014 = Table(
    "item",
    (
        item("asin"),
        tokens("title", "title?"),
        sql("sales_type", "token", 'json_keys("salesRank")[1]'),
        sql("sales_rank", "float", "json_extract_string(\"salesRank\", '$.*')[1]"),
        sql("categories", "token_seq", '"categories"'),
        sql("price", "float", PRICE),
        token("brand", "brand?"),
    ),
    patterns=("meta_*.json",),
    format=JSON,
    columns=("salesRank?", "categories?", "price?"),
)
REVIEWS_2018 = replace(REVIEWS, patterns=("[A-Z]*.json", "!meta_*", "!reviews_*"))
RATINGS_2018 = replace(
    RATINGS_2014,
    patterns=("[A-Z]*.csv", "!ratings_*"),
    format=replace(RATINGS_ONLY, columns=("item", "user", "rating", "timestamp")),
)
META_2018 = Table(
    "item",
    (
        item("asin"),
        tokens("title", "title?"),
        sql("categories", "token_seq", '"category"'),
        token("brand", "brand?"),
        sql("price", "float", PRICE),
    ),
    patterns=("meta_*.json",),
    format=JSON,
    columns=("category?", "price?"),
)
REVIEWS_2023 = Table(
    "inter",
    (user("user_id"), item("parent_asin"), number("rating")),
    TimeSpec(("timestamp",), "ms"),
    patterns=("[A-Z]*.jsonl", "!meta_*"),
    format=JSON,
)
RATINGS_2023 = replace(REVIEWS_2023, patterns=("[A-Z]*.csv",), format=Format("csv", ","))
META_2023 = Table(
    "item",
    (
        item("parent_asin"),
        tokens("title", "title?"),
        token("main_category", "main_category?"),
        sql("categories", "token_seq", '"categories"'),
        token("store", "store?"),
        number("average_rating", "average_rating?"),
        number("rating_number", "rating_number?"),
        sql("price", "float", PRICE),
    ),
    patterns=("meta_*.jsonl",),
    format=JSON,
    columns=("categories?", "price?"),
)

SOURCES = (
    Source("amazon-2014", "Amazon reviews 1996-2014", (REVIEWS, RATINGS_2014, META_2014), "McAuley et al., SIGIR 2015"),
    Source("amazon-2018", "Amazon reviews 1996-2018", (REVIEWS_2018, RATINGS_2018, META_2018), "Ni et al., EMNLP 2019"),
    Source("amazon-2023", "Amazon reviews 1996-2023", (REVIEWS_2023, RATINGS_2023, META_2023), "Hou et al., 2024"),
)

CATEGORIES = [
    "Apps_for_Android",
    "Beauty",
    "Tools_and_Home_Improvement",
    "Books",
    "Instant_Video",
    "Digital_Music",
    "Movies_and_TV",
    "Automotive",
    "Baby",
    "Clothing_Shoes_and_Jewelry",
    "Cell_Phones_and_Accessories",
    "Patio_Lawn_and_Garden",
    "Kindle_Store",
    "Home_and_Kitchen",
    "Grocery_and_Gourmet_Food",
    "Health_and_Personal_Care",
    "Pet_Supplies",
    "Sports_and_Outdoors",
    "Toys_and_Games",
    "Electronics",
    "Office_Products",
    "Video_Games",
    "Musical_Instruments",
]


def _drop_in(category: str) -> DropIn:
    ratings = replace(RATINGS_2014, patterns=(f"ratings_{category}.csv",))
    title = (META_2014.fields[0], token("title", "title?"), *META_2014.fields[2:])
    return DropIn(
        f"amazon_{category.lower()}",
        f"Amazon_{category}",
        {"": (ratings, replace(META_2014, fields=title, patterns=(f"meta_{category}.json",)))},
    )


DROP_INS = tuple(_drop_in(category) for category in CATEGORIES)
