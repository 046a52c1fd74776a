"""Common column names: which column of an unknown table is the user, the item, the time."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

# Names are compared in lower case without anything but letters and digits; the first that is there wins.
EXACT = {
    "user": (
        "userid user uid reviewerid visitorid customerid customer clientid client memberid member profileid "
        "personid playerid listenerid readerid buyerid accountid uuid username userno usernum author sessionid session"
    ),
    "item": (
        "itemid item iid parentasin asin productid product movieid movie bookid book isbn newsid news articleid "
        "article trackid track songid song artistid artist albumid videoid video gameid appid businessid venueid poiid "
        "locationid location placeid adid aid sku skuid itemno goodsid goods contentid showid"
    ),
    "time": (
        "timestamp ts time unixtime unixreviewtime datetime date eventtime eventtimestamp createdat created "
        "timestampms timems reviewtime eventdate utctimestamp utctime clicktime watchedat playedat orderdate "
        "purchasedate visitedat at when"
    ),
    "rating": "rating ratings stars score overall reviewscore userrating",
    "behavior": "behavior behaviour behaviortype behaviourtype event eventtype action actiontype interactiontype",
}
PREFIXES = {
    "user": ("user", "customer", "visitor", "reviewer", "member", "client"),
    "item": ("item", "product", "news", "article", "movie", "song", "track", "book", "asin", "video"),
    "time": ("timestamp", "time", "date", "createdat", "unixtime"),
}
DATE_PARTS = {"day": "%d", "month": "%m", "year": "%Y"}
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
LITERAL_LIST = rf"\[\s*{_QUOTED}(?:\s*,\s*{_QUOTED})*\s*,?\s*\]"  # of texts, as Python prints it
LITERAL_TEXT = rf"({_QUOTED})"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CODE = re.compile(r"(id|code|zip|zipcode|year|key|no|isbn|sku)$")


def simplify(name: str) -> str:
    """Return a column name as it is compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", name.lower())


def recognise(columns: Sequence[str], roles: Sequence[str] = tuple(EXACT)) -> dict[str, tuple[str, ...]]:
    """Return the columns that play the asked roles.

    Args:
        columns (Sequence[str]): the table's columns.
        roles (Sequence[str]): of ``user``, ``item``, ``time``, ``rating``, ``behavior``.
    Returns:
        dict[str, tuple[str, ...]]: role to column; a role nobody plays is absent. Only a time has several columns
        (day, month and year).
    """
    simple = {simplify(name): name for name in reversed(columns)}
    found: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for role in roles:
        exact = (simple[name] for name in EXACT[role].split() if name in simple)
        prefixed = (
            column
            for prefix in PREFIXES.get(role, ())
            for name, column in simple.items()
            if name.startswith(prefix) and len(name) <= len(prefix) + 6
        )
        match = next((column for column in (*exact, *prefixed) if column not in taken), None)
        if match is not None:
            found[role] = (match,)
            taken.add(match)
        elif role == "time" and all(part in simple for part in DATE_PARTS):
            found[role] = tuple(simple[part] for part in DATE_PARTS)
    return found


def date_parts(columns: Sequence[str]) -> str | None:
    """Return the notation of a day, a month and a year in columns of their own, or None where they are not that."""
    parts = [next((part for part in DATE_PARTS if part in simplify(column)), "") for column in columns]
    is_date = len(columns) == 3 and sorted(parts) == sorted(DATE_PARTS)
    return " ".join(DATE_PARTS[part] for part in parts) if is_date else None


def infer_type(name: str, values: Sequence[str]) -> tuple[str, str | None]:
    """Return the field type that fits the first values of a column, and what separates values within a cell.

    Args:
        name (str): the column; a number in a column named like an id or a code stays a token.
        values (Sequence[str]): its first values.
    Returns:
        tuple[str, str | None]: for instance ``("float", None)`` or ``("token_seq", "|")``.
    """
    filled = [value.strip() for value in values if value.strip()]
    if not filled:
        return "token", None
    if all(value.startswith("[") and value.endswith("]") for value in filled):
        return ("token_seq" if all(map(_is_list, filled)) else "token"), None
    if all(_NUMBER.fullmatch(value) for value in filled):
        return ("token", None) if _CODE.search(simplify(name)) else ("float", None)
    for sep in ("|", ">", ";"):
        if sum(sep in value for value in filled) > len(filled) / 3:
            return "token_seq", sep
    words = sum(len(value.split()) for value in filled) / len(filled)
    return ("token_seq", None) if words >= 2 else ("token", None)


def _is_list(value: str) -> bool:
    """Say whether a cell is a JSON array, or a list of texts as Python prints it."""
    try:
        return isinstance(json.loads(value), list)
    except (ValueError, RecursionError):
        return re.fullmatch(LITERAL_LIST, value) is not None
