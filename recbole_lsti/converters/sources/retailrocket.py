"""RetailRocket: views, baskets and purchases in a shop."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Field, Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, token, tokens, user

CSV = Format("csv", ",")
EVENTS = Table(
    "inter",
    (user("visitorid"), item("itemid"), token("behavior", "event")),
    TimeSpec(("timestamp",), "ms"),
    time_at=2,
    patterns=("events*.csv",),
    format=CSV,
)
# A property table in long form: the last known category of an item is its category.
CATEGORIES = Table(
    "item",
    (item("itemid"), token("category", "value"), number("since_ms", "timestamp")),
    patterns=("item_properties*.csv",),
    format=CSV,
    relation="SELECT * FROM {raw} WHERE \"property\" = 'categoryid'",
    columns=("property",),
    after=(
        (
            "DELETE FROM {table} WHERE rowid NOT IN "
            "(SELECT arg_max(rowid, CAST(since_ms AS DOUBLE)) FROM {table} GROUP BY item_id)"
        ),
    ),
)
SOURCES = (Source("retailrocket", "RetailRocket: events of a shop", (EVENTS, CATEGORIES), "Zykov et al., Kaggle 2016"),)

PROPERTIES = Table(
    "item",
    (item("itemid"), token("property"), tokens("value")),
    time=TimeSpec(("timestamp",), "ms", name="item_timestamp"),
    time_at=0,
    patterns=("item_properties*.csv",),
    format=CSV,
    unique=False,
)


def _events(kind: str) -> tuple[Table, ...]:
    fields: tuple[Field, ...] = (user("visitorid", "visitor_id"), item("itemid"))
    if kind == "transaction":
        fields = (*fields, token("transaction_id", "transactionid"))
    only = f"SELECT * FROM {{raw}} WHERE \"event\" = '{kind}'"
    events = replace(EVENTS, fields=fields, time_at=0, relation=only, columns=("event",))
    return (events, PROPERTIES)


DROP_INS = (
    DropIn(
        "retailrocket",
        "retailrocket-{type}",
        {kind: _events(kind) for kind in ("view", "addtocart", "transaction")},
        count="count",
        merged_without=("transaction_id",),
        side_stem="retailrocket",
    ),
)
