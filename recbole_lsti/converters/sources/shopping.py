"""Logs of large shops with several behaviours: Taobao, Tmall, REES46, OTTO."""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import day, item, mapped, number, sql, token, tokens, user

TAOBAO = Table(
    "inter",
    (user("user"), item("item"), token("category"), token("behavior")),
    # The publisher states 25 November to 3 December 2017, Beijing time; other days are faults of the log.
    TimeSpec(("timestamp",), "s", window=(1511539200, 1512316799)),
    time_at=2,
    patterns=("UserBehavior*.csv",),
    format=Format("csv", ",", header=False, quote=False, columns=("user", "item", "category", "behavior", "timestamp")),
)

ACTIONS = {"0": "click", "1": "cart", "2": "buy", "3": "favourite"}
TMALL = Table(
    "inter",
    (
        user("user_id"),
        item("item_id"),
        sql("behavior", "token", mapped("action_type", ACTIONS)),
        token("category", "cat_id"),
        token("seller", "seller_id|merchant_id?"),
        token("brand", "brand_id?"),
    ),
    # Month and day of 2014 as one number, so that 829 is 29 August.
    TimeSpec((day("'2014' || lpad(\"time_stamp\", 4, '0')", "%Y%m%d"),), is_sql=True),
    time_at=2,
    patterns=("user_log_format*.csv",),
    format=Format("csv", ","),
    columns=("action_type", "time_stamp"),
)
TMALL_2016 = Table(
    "inter",
    (
        user("use_ID|user_id"),
        item("ite_ID|item_id"),
        sql("behavior", "token", mapped("act_ID", {"0": "click", "1": "buy"})),
        token("category", "cat_ID|cat_id"),
        token("seller", "sel_ID|seller_id"),
    ),
    TimeSpec(("time|time_stamp",), "%Y%m%d"),
    time_at=2,
    patterns=("ijcai2016_taobao.csv",),
    format=Format("csv", ","),
    columns=("act_ID|action_type",),
)

REES46 = Table(
    "inter",
    (
        user("user_id"),
        item("product_id"),
        token("behavior", "event_type"),
        number("price"),
        tokens("category", "category_code", "."),
        token("brand"),
        token("session_id", "user_session"),
    ),
    TimeSpec(("event_time",), "iso"),
    time_at=2,
    patterns=("20[0-9][0-9]-[A-Z]*.csv",),
    format=Format("csv", ","),
)

OTTO = Table(
    "inter",
    (
        user("session"),
        sql("item_id", "token", "json_extract_string(\"event\", '$.aid')", required=True),
        sql("behavior", "token", "json_extract_string(\"event\", '$.type')"),
    ),
    TimeSpec(("TRY_CAST(json_extract_string(\"event\", '$.ts') AS HUGEINT) * 1000000",), is_sql=True),
    time_at=2,
    patterns=("otto-recsys-*.jsonl", "otto-recsys-*.json"),
    format=Format("json"),
    relation=(  # a line that is no JSON stays as one row, to be rejected
        "SELECT * EXCLUDE (events), unnest(CASE WHEN _broken THEN [NULL]::JSON[] "
        "ELSE json_extract(\"events\", '$[*]') END) AS event FROM {raw}"
    ),
    columns=("events",),
)

SOURCES = (
    Source("taobao", "Taobao UserBehavior: views, baskets, favourites, purchases", (TAOBAO,), "Zhu et al., KDD 2018"),
    Source("tmall", "Tmall: clicks, baskets, purchases, favourites", (TMALL, TMALL_2016), "IJCAI-15 and -16 contests"),
    Source("rees46", "REES46: events of a shop, one file a month", (REES46,), "REES46 Marketing Platform"),
    Source("otto", "OTTO: clicks, carts and orders by session", (OTTO,), "Normann et al., 2022"),
)


def _tmall_drop_in(code: str) -> tuple[Table, ...]:
    fields = (
        user("use_ID|user_id"),
        token("seller_id", "sel_ID|seller_id"),
        item("ite_ID|item_id"),
        token("category_id", "cat_ID|cat_id"),
    )
    only = f"SELECT * FROM {{raw}} WHERE \"act_ID\" = '{code}'"
    return (replace(TMALL_2016, fields=fields, time_at=4, relation=only),)


DROP_INS = (
    DropIn(
        "tmall",
        "tmall-{type}",
        {"click": _tmall_drop_in("0"), "buy": _tmall_drop_in("1")},
        count="interactions",
        folder="tmall-{type}",
    ),
)
