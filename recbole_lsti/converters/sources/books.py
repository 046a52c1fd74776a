"""Books: Book-Crossing and goodbooks-10k. Neither states times: rows keep the order of the files."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, token, tokens, user

SEMICOLONS = Format("csv", ";", encoding="cp1252")
BX_RATINGS = Table(
    "inter",
    (user("User-ID"), item("ISBN"), number("rating", "Book-Rating")),
    patterns=("BX-Book-Ratings.csv",),
    format=SEMICOLONS,
)
BX_BOOKS = Table(
    "item",
    (
        item("ISBN"),
        tokens("book_title", "Book-Title"),
        tokens("book_author", "Book-Author"),
        number("publication_year", "Year-Of-Publication"),
        tokens("publisher", "Publisher"),
    ),
    patterns=("BX-Books.csv",),
    format=SEMICOLONS,
)
BX_USERS = Table(
    "user",
    (user("User-ID"), tokens("location", "Location", ","), number("age", "Age")),
    patterns=("BX-Users.csv",),
    format=SEMICOLONS,
)

CSV = Format("csv", ",")
GOODBOOKS = Table("inter", (user("user_id"), item("book_id"), number("rating")), patterns=("ratings.csv",), format=CSV)
GOODBOOKS_BOOKS = Table(
    "item",
    (
        item("book_id"),
        tokens("title", "title?"),
        tokens("authors", "authors?", ","),
        number("publication_year", "original_publication_year?"),
        token("language", "language_code?"),
        number("average_rating", "average_rating?"),
    ),
    patterns=("books.csv",),
    format=CSV,
)
SOURCES = (
    Source("book-crossing", "Book-Crossing: ratings of books", (BX_RATINGS, BX_BOOKS, BX_USERS), "Ziegler, WWW 2005"),
    Source("goodbooks", "goodbooks-10k: ratings of books", (GOODBOOKS, GOODBOOKS_BOOKS), "Zajac, 2017"),
)
DROP_INS = (
    DropIn(
        "book-crossing",
        "book-crossing",
        {
            "": (
                BX_RATINGS,
                BX_BOOKS,
                replace(BX_USERS, fields=(user("User-ID"), tokens("location", "Location"), number("age", "Age"))),
            )
        },
    ),
)
