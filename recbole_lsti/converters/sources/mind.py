"""MIND: Microsoft News. A user's earlier clicks (history), then the clicked news of every impression.

History carries no times. It is the same in every impression of a user, oldest first, and lies before the first of
them: its clicks get that impression's time and stand before its clicks.
"""

from __future__ import annotations

from dataclasses import replace

from recbole_lsti.converters.plan import Format, Table, TimeSpec
from recbole_lsti.converters.sources import DropIn, Source
from recbole_lsti.converters.sources._fields import item, sql, token, tokens, user

FORMAT = Format("csv", "\t", header=False, quote=False, columns=("impression", "user", "time", "history", "shown"))
STAMP = TimeSpec(("time",), "%m/%d/%Y %I:%M:%S %p")
EVENTS = (
    "SELECT *, unnest(list_concat("
    "[{{'news': v, 'how': 'history'}} for v in string_split(\"history\", ' ') if v <> ''], "
    "[{{'news': v[:-3], 'how': 'click'}} for v in string_split(\"shown\", ' ') if v LIKE '%-1'])) AS event FROM {raw}"
)
FIRST = "(SELECT user_id, arg_min(_file, (_ts, rowid)), arg_min(_line, (_ts, rowid)) FROM {table} GROUP BY 1)"

CLICKS = Table(
    "inter",
    (
        user("user"),
        sql("item_id", "token", '"event".news', required=True),
        sql("behavior", "token", '"event".how'),
    ),
    STAMP,
    time_at=2,
    patterns=("*behaviors.tsv",),
    format=FORMAT,
    relation=EVENTS,
    columns=("history", "shown"),
    after=(f"DELETE FROM {{table}} WHERE behavior = 'history' AND (user_id, _file, _line) NOT IN {FIRST}",),
)
NEWS_COLUMNS = ("news", "category", "sub_category", "title", "abstract", "url", "title_entities", "abstract_entities")
NEWS = Table(
    "item",
    (item("news"), token("category"), token("sub_category"), tokens("title"), tokens("abstract")),
    patterns=("*news.tsv",),
    format=Format("csv", "\t", header=False, quote=False, columns=NEWS_COLUMNS),
)
SOURCES = (Source("mind", "MIND: clicks on news, with history", (CLICKS, NEWS), "Wu et al., ACL 2020"),)

SHOWN = (
    "SELECT *, unnest([{{'news': v[:-3], 'label': v[-1:]}} for v in string_split(\"shown\", ' ') if v <> '']) AS event "
    "FROM {raw}"
)
_impressions = replace(
    CLICKS,
    fields=(
        sql("user_id", "token", "ltrim(\"user\", 'U')", required=True),
        sql("item_id", "token", "ltrim(\"event\".news, 'N')", required=True),
        sql("label", "float", '"event".label'),
    ),
    time_at=None,
    relation=SHOWN,
    columns=("user", "shown"),
    after=(),
)
_news = replace(
    NEWS,
    fields=(
        sql("item_id", "token", "ltrim(\"news\", 'N')", required=True),
        *(tokens(name) for name in NEWS_COLUMNS[1:]),
    ),
    columns=("news",),
)
DROP_INS = tuple(
    DropIn(f"mind_{size}_{part}", f"mind_{size}_{part}", {"": (_impressions, _news)})
    for size in ("large", "small")
    for part in ("train", "dev")
)
