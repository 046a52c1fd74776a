"""MovieLens: ml-100k and ml-1m, ml-10m, and the CSV releases (ml-20m, ml-25m, ml-32m, ml-latest)."""

from __future__ import annotations

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, sql, token, user
from recbole_lsti.converters.sql import ident, literal

REFERENCE = "Harper & Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015"
YEAR_AT_END = r"'\((\d{4})[^()]*\)(\s*\([A-Z]+\))?\s*$'"  # "(1995)", "(1994- )", and "(1995) (V)" of videos
GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]

FLAGGED_GENRES = " || '|' || ".join(f"CASE {ident(g)} WHEN '1' THEN {literal(g)} ELSE '' END" for g in GENRES_100K)
TITLE = f"regexp_replace(\"title\", {YEAR_AT_END}, '')"
YEAR = f'regexp_extract("title", {YEAR_AT_END}, 1)'
RATINGS = (user("userId"), item("movieId"), number("rating"))
STAMP = TimeSpec(("timestamp",), "s")


def _ratings(patterns: tuple[str, ...], fmt: Format) -> Table:
    return Table("inter", RATINGS, STAMP, patterns=patterns, format=fmt)


def _movies(patterns: tuple[str, ...], fmt: Format, title: str, genre: str) -> Table:
    fields = (
        item("movieId"),
        sql(title, "token_seq", TITLE),
        sql("release_year", "token", YEAR),
        sql(genre, "token_seq", "nullif(\"genres\", '(no genres listed)')", sep="|"),
    )
    return Table("item", fields, patterns=patterns, format=fmt, columns=("title", "genres"))


def _colons(*columns: str) -> Format:
    return Format("csv", "::", header=False, quote=False, columns=columns)


RATINGS_COLONS = _ratings(("ratings.dat",), _colons("userId", "movieId", "rating", "timestamp"))
MOVIES_COLONS = _movies(("movies.dat",), _colons("movieId", "title", "genres"), "movie_title", "genre")
RATINGS_CSV = _ratings(("ratings.csv",), Format("csv", ","))
MOVIES_CSV = _movies(("movies.csv",), Format("csv", ","), "movie_title", "genre")

ML100K = (
    _ratings(
        ("u.data",),
        Format("csv", "\t", header=False, quote=False, columns=("userId", "movieId", "rating", "timestamp")),
    ),
    Table(
        "item",
        (
            item("movieId"),
            sql("movie_title", "token_seq", TITLE),
            sql("release_year", "token", YEAR),
            sql("class", "token_seq", FLAGGED_GENRES, sep="|"),
        ),
        patterns=("u.item",),
        format=Format(
            "csv", "|", header=False, quote=False, columns=("movieId", "title", "release", "video", "url", *GENRES_100K)
        ),
        columns=("title", *GENRES_100K),
    ),
    Table(
        "user",
        (user("user"), token("age"), token("gender"), token("occupation"), token("zip_code")),
        patterns=("u.user",),
        format=Format(
            "csv", "|", header=False, quote=False, columns=("user", "age", "gender", "occupation", "zip_code")
        ),
    ),
)
ML1M = (
    RATINGS_COLONS,
    MOVIES_COLONS,
    Table(
        "user",
        (user("user"), token("age"), token("gender"), token("occupation"), token("zip_code")),
        patterns=("users.dat",),
        format=_colons("user", "gender", "age", "occupation", "zip_code"),
    ),
)
CSV_RELEASES = ("ml-20m", "ml-25m", "ml-32m", "ml-latest")

SOURCES = (
    Source("ml-100k", "MovieLens 100K: film ratings, 1998", ML100K, REFERENCE),
    Source("ml-1m", "MovieLens 1M: film ratings, 2003", ML1M, REFERENCE),
    Source("ml-10m", "MovieLens 10M: film ratings, 2009", (RATINGS_COLONS, MOVIES_COLONS), REFERENCE),
    *(
        Source(name, f"MovieLens {name[3:]}: film ratings as CSV", (RATINGS_CSV, MOVIES_CSV), REFERENCE)
        for name in CSV_RELEASES
    ),
)

DROP_INS = (
    DropIn("ml-100k", "ml-100k", {"": ML100K}),
    DropIn("ml-1m", "ml-1m", {"": ML1M}),
    DropIn(
        "ml-10m", "ml-10m", {"": (RATINGS_COLONS, _movies(("movies.dat",), MOVIES_COLONS.format, "movie_name", "type"))}
    ),
    DropIn("ml-20m", "ml-20m", {"": (RATINGS_CSV, _movies(("movies.csv",), MOVIES_CSV.format, "movie_name", "type"))}),
)
