"""YooChoose: clicks and purchases in a shop, RecSys Challenge 2015. A session plays the user's part."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, number, sql, token, user

CLICKS_FORMAT = Format("csv", ",", header=False, quote=False, columns=("session", "time", "item", "category"))
BUYS_FORMAT = Format("csv", ",", header=False, quote=False, columns=("session", "time", "item", "price", "quantity"))
REFERENCE = "Ben-Shimon et al., RecSys Challenge 2015"
STAMP = TimeSpec(("time",), "iso")

CLICKS = Table(
    "inter",
    (user("session"), item("item"), token("category")),
    STAMP,
    time_at=2,
    patterns=("yoochoose-clicks*.dat",),
    format=CLICKS_FORMAT,
)
BUYS = Table(
    "inter",
    (user("session"), item("item"), sql("price", "float", "nullif(\"price\", '0')"), number("quantity")),
    STAMP,
    time_at=2,
    patterns=("yoochoose-buys*.dat",),
    format=BUYS_FORMAT,
    columns=("price",),
)
SOURCES = (
    Source("yoochoose", "YooChoose: clicks in a shop", (CLICKS, BUYS), REFERENCE),
    Source("yoochoose-buys", "YooChoose: purchases in a shop", (BUYS,), REFERENCE),
)

_session, _item = user("session", "session_id"), item("item")
DROP_INS = (
    DropIn(
        "yoochoose",
        "yoochoose-{type}s",
        {
            "click": (replace(CLICKS, fields=(_session, _item, token("category")), time_at=1),),
            "buy": (replace(BUYS, fields=(_session, _item, number("price"), number("quantity")), time_at=1),),
        },
        count="count",
        keep="consecutive-last",
        merged_without=("category", "price", "quantity"),
    ),
)
