"""Diginetica: views and purchases in a shop, CIKM Cup 2016. A session plays the user's part.

The day of a session and the milliseconds since its start make the time; RecSysDatasets adds the milliseconds as if they
were seconds and sorts the clicks of a session by item, which is mended here.
"""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import day, item, personal, sql, user

SEMICOLONS = Format("csv", ";", quote=False)
TIME = day('"eventdate"', "%Y-%m-%d") + ' + TRY_CAST("timeframe" AS BIGINT) * 1000000'
STAMP = TimeSpec((TIME,), is_sql=True)
COLUMNS = ("eventdate", "timeframe")

VIEWS = Table(
    "inter",
    (user("sessionId|session_id"), item("itemId|item_id"), personal("buyer_id", "userId|user_id?")),
    STAMP,
    time_at=2,
    patterns=("*train-item-views.csv",),
    format=SEMICOLONS,
    columns=COLUMNS,
)
PURCHASES = replace(VIEWS, patterns=("*train-purchases.csv",))
PRODUCTS = Table(
    "item",
    (
        item("itemId|item_id"),
        sql("price_log2", "float", '"pricelog2"'),
        sql("name", "token_seq", '"product.name.tokens"', sep=","),
    ),
    patterns=("products.csv",),
    format=SEMICOLONS,
    columns=("pricelog2", "product.name.tokens"),
)
SOURCES = (
    Source("diginetica", "Diginetica: views in a shop", (VIEWS, PURCHASES, PRODUCTS), "CIKM Cup 2016"),
    Source("diginetica-buys", "Diginetica: purchases in a shop", (PURCHASES, PRODUCTS), "CIKM Cup 2016"),
)

SHORT = "(SELECT session_id FROM {table} GROUP BY 1 HAVING count(*) < 2)"
RARE = "(SELECT item_id FROM {table} GROUP BY 1 HAVING count(*) < 5)"
_filtered = (
    f"DELETE FROM {{table}} WHERE session_id IN {SHORT}",
    f"DELETE FROM {{table}} WHERE item_id IN {RARE}",
    f"DELETE FROM {{table}} WHERE session_id IN {SHORT}",
)
_views = replace(VIEWS, fields=(user("sessionId|session_id", "session_id"), item("itemId|item_id")), after=_filtered)
DROP_INS = (DropIn("diginetica", "diginetica", {"": (_views,)}, count="times", keep="consecutive-last"),)
