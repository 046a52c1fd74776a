"""Check-ins: Gowalla and Foursquare (New York and Tokyo)."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, token, user

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
VISIT_FIELDS = (user("userId"), item("venueId"), number("timezone_offset", "timezoneOffset"))
VENUE_FIELDS = (
    item("venueId"),
    token("venue_category_id", "venueCategoryId"),
    token("venue_category_name", "venueCategory"),
    number("latitude"),
    number("longitude"),
)


def _city(city: str) -> tuple[Table, ...]:
    """Return the tables of one city. The two cities number their users alike, so they must not be mixed."""
    stem, time = f"dataset_TSMC2014_{city}", TimeSpec(("utcTimestamp",), WEEKDAY_FIRST)
    comma = Format("csv", ",")
    tabs = Format("csv", "\t", header=False, quote=False, columns=tuple(NAMES), encoding="latin-1")
    return (
        Table("inter", VISIT_FIELDS, time, time_at=2, patterns=(f"{stem}.csv",), format=comma),
        Table("inter", VISIT_FIELDS, time, time_at=2, patterns=(f"{stem}.txt",), format=tabs),
        Table("item", VENUE_FIELDS, patterns=(f"{stem}.csv",), format=comma),
        Table("item", VENUE_FIELDS, patterns=(f"{stem}.txt",), format=tabs),
    )


YANG = "Yang et al., IEEE TSMC 45(1), 2015"
SOURCES = (
    Source("gowalla", "Gowalla: check-ins", (GOWALLA,), "Cho, Myers & Leskovec, KDD 2011"),
    Source("foursquare", "Foursquare: check-ins in New York", _city("NYC"), YANG),
    Source("foursquare-tky", "Foursquare: check-ins in Tokyo", _city("TKY"), YANG),
)


def _foursquare(city: str) -> DropIn:
    visits, _, venues, _ = _city(city)
    visits = replace(visits, fields=(VISIT_FIELDS[0], item("venueId", "venue_id"), VISIT_FIELDS[2]), time_at=3)
    venues = replace(venues, fields=(item("venueId", "venue_id"), *VENUE_FIELDS[1:]))
    return DropIn("foursquare", f"foursquare_{city}", {"": (visits, venues)}, count="click_times")


DROP_INS = (
    DropIn("gowalla", "gowalla", {"": (GOWALLA,)}, count="num_repeat", keep="first"),
    _foursquare("NYC"),
    _foursquare("TKY"),
)
