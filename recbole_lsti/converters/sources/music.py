"""Music: Last.fm 1K, Last.fm HetRec 2011, 30Music."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, sql, token, tokens, user

LASTFM_1K = Table(
    "inter",
    (
        user("user"),
        # A track without an identifier is known by its artist and its name, in one word: it must stand in lists.
        sql(
            "item_id",
            "token",
            'coalesce(nullif("track_id", \'\'), one_token("artist" || \' - \' || "track"))',
            required=True,
        ),
        sql("artist_id", "token", 'coalesce(nullif("artist_id", \'\'), "artist")'),
    ),
    TimeSpec(("time",), "iso"),
    time_at=2,
    patterns=("userid-timestamp-artid-artname-traid-traname.tsv",),
    format=Format(
        "csv", "\t", header=False, quote=False, columns=("user", "time", "artist_id", "artist", "track_id", "track")
    ),
    columns=("artist_id", "artist", "track_id", "track"),
)
LISTENERS = Table(
    "user",
    (user("id"), token("gender"), number("age"), token("country")),
    patterns=("userid-profile.tsv",),
    format=Format("csv", "\t", quote=False),
)

TSV = Format("csv", "\t", quote=False)
TAGGINGS = Table(
    "inter",
    (user("userID"), item("artistID"), token("tag_id", "tagID")),
    # The site opened in 2002: the handful of taggings dated 1956 to 1979 are faults of the file.
    TimeSpec(("day", "month", "year"), "%d %m %Y", window=(1009843200, 4102444800)),
    time_at=2,
    patterns=("*user_taggedartists.dat",),
    format=TSV,
)
TAGGINGS_MS = replace(
    TAGGINGS,
    time=TimeSpec(("timestamp",), "ms", window=(1009843200, 4102444800)),
    patterns=("*user_taggedartists-timestamps.dat",),
)
PLAYS = Table(
    "inter", (user("userID"), item("artistID"), number("weight")), patterns=("*user_artists.dat",), format=TSV
)
ARTISTS = Table("item", (item("id"), tokens("name")), patterns=("artists.dat",), format=TSV)

IDOMAAR = Format("csv", "\t", header=False, quote=False, columns=("type", "id", "time", "properties", "relations"))
PLAY_START = "coalesce(TRY_CAST(json_extract_string(\"play\", '$.playstart') AS HUGEINT), 0)"
PLAY_TIME = f'(TRY_CAST("time" AS HUGEINT) + {PLAY_START}) * 1000000000'
SESSIONS_30MUSIC = Table(
    "inter",
    (
        sql("user_id", "token", "json_extract_string(\"relations\", '$.subjects[0].id')", required=True),
        sql("item_id", "token", "json_extract_string(\"play\", '$.id')", required=True),
        token("session_id", "id"),
        sql("playtime", "float", "json_extract_string(\"play\", '$.playtime')"),
    ),
    TimeSpec((PLAY_TIME,), is_sql=True),
    time_at=2,
    patterns=("sessions.idomaar",),
    format=IDOMAAR,
    relation=(  # relations that are no JSON stay as one row, to be rejected
        "SELECT *, unnest(CASE WHEN relations IS NULL THEN [NULL]::JSON[] "
        "ELSE json_extract(relations, '$.objects[*]') END) AS play FROM "
        '(SELECT * REPLACE (CASE WHEN json_valid("relations") THEN "relations" END AS relations) FROM {raw})'
    ),
    columns=("time", "relations"),
)
SONGS_PARQUET = Table(
    "inter",
    (user("user_id"), item("song_id"), token("session_id"), number("playtime")),
    TimeSpec(("ts",), "s"),
    time_at=2,
    patterns=("sessions*.parquet",),
    format=Format("parquet"),
)

HETREC = "Cantador, Brusilovsky & Kuflik, HetRec 2011"
SOURCES = (
    Source("lastfm-1k", "Last.fm 1K: plays of 992 listeners", (LASTFM_1K, LISTENERS), "Celma, 2010"),
    Source("lastfm-hetrec", "Last.fm HetRec: taggings of artists", (TAGGINGS_MS, TAGGINGS, ARTISTS), HETREC),
    Source("lastfm-hetrec-plays", "Last.fm HetRec: play counts, no time", (PLAYS, ARTISTS), HETREC),
    Source("30music", "30Music: plays in sessions", (SESSIONS_30MUSIC, SONGS_PARQUET), "Turrin et al., RecSys 2015"),
)

_ARTIST_FIELDS = (item("id", "artist_id"), token("name"), token("url"), token("picture_url", "pictureURL"))
DROP_INS = (
    DropIn(
        "lastfm",
        "lastfm",
        {
            "": (
                replace(PLAYS, fields=(user("userID"), item("artistID", "artist_id"), number("weight"))),
                replace(ARTISTS, fields=_ARTIST_FIELDS),
            )
        },
    ),
)
