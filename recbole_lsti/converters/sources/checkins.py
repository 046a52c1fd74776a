"""Check-ins: Gowalla and Foursquare (New York and Tokyo)."""

from __future__ import annotations

from dataclasses import replace

from ..plan import Format, Table, TimeSpec
from . import DropIn, Source
from ._fields import item, number, token, user

GOWALLA = Table(
    "inter",
    (user("user"), item("place"), number("latitude"), number("longitude")),
    TimeSpec(("time",), "iso"),
    time_at=2,
    patterns=("*gowalla_totalCheckins.txt",),
    format=Format("csv", "\t", header=False, quote=False, columns=("user", "time", "latitude", "longitude", "place")),
)

NAMES = [
    "userId",
    "venueId",
    "venueCategoryId",
    "venueCategory",
    "latitude",
    "longitude",
    "timezoneOffset",
    "utcTimestamp",
]
WEEKDAY_FIRST = "%a %b %d %H:%M:%S %z %Y"
FOURSQUARE = Table(
    "inter",
    (user("userId"), item("venueId"), number("timezone_offset", "timezoneOffset")),
    TimeSpec(("utcTimestamp",), WEEKDAY_FIRST),
    time_at=2,
    patterns=("dataset_TSMC2014_*.csv",),
    format=Format("csv", ","),
)
FOURSQUARE_TXT = replace(
    FOURSQUARE,
    patterns=("dataset_TSMC2014_*.txt",),
    format=Format("csv", "\t", header=False, quote=False, columns=tuple(NAMES), encoding="latin-1"),
)
VENUES = Table(
    "item",
    (
        item("venueId"),
        token("venue_category_id", "venueCategoryId"),
        token("venue_category_name", "venueCategory"),
        number("latitude"),
        number("longitude"),
    ),
    patterns=FOURSQUARE.patterns,
    format=FOURSQUARE.format,
)
VENUES_TXT = replace(VENUES, patterns=FOURSQUARE_TXT.patterns, format=FOURSQUARE_TXT.format)
YANG = "Yang et al., IEEE TSMC 45(1), 2015"
SOURCES = (
    Source("gowalla", "Gowalla: check-ins", (GOWALLA,), "Cho, Myers & Leskovec, KDD 2011"),
    Source("foursquare", "Foursquare: check-ins", (FOURSQUARE, FOURSQUARE_TXT, VENUES, VENUES_TXT), YANG),
)


def _foursquare(city: str) -> DropIn:
    pattern = (f"dataset_TSMC2014_{city}.csv",)
    fields = (user("userId"), item("venueId", "venue_id"), number("timezone_offset", "timezoneOffset"))
    visits = replace(FOURSQUARE, fields=fields, time_at=3, patterns=pattern)
    venues = replace(VENUES, fields=(item("venueId", "venue_id"), *VENUES.fields[1:]), patterns=pattern)
    return DropIn("foursquare", f"foursquare_{city}", {"": (visits, venues)}, count="click_times")


DROP_INS = (
    DropIn("gowalla", "gowalla", {"": (GOWALLA,)}, count="num_repeat", keep="first"),
    _foursquare("NYC"),
    _foursquare("TKY"),
)
