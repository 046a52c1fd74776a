"""The flags of RecSysDatasets, and its files but for order and mended faults."""

from __future__ import annotations

import pytest

from recbole_lsti.converters.run import main
from recbole_lsti.converters.sources import drop_ins

from .test_sources import CASES, write_files

EVENTS = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,1,view,7,\n1433224214164,1,view,7,\n1433222276276,2,transaction,8,4000\n1433221999827,2,view,7,\n"
)


@pytest.fixture
def run(tmp_path, capsys):
    """Run the drop-in on files; return the status, the written files by name, and standard error."""

    def call(dataset, files, *flags, kinds=("inter",)):
        raw, out = tmp_path / "raw", tmp_path / "made"
        raw.mkdir(exist_ok=True)
        write_files(raw, files)
        wanted = [f"--convert_{kind}" for kind in kinds]
        paths = ["--input_path", str(raw), "--output_path", str(out)]
        code = main(["--dataset", dataset, *paths, *wanted, *flags])
        made = (
            {p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*") if p.is_file()}
            if out.exists()
            else {}
        )
        return code, made, capsys.readouterr().err

    return call


def test_ml_1m(run):
    code, made, _ = run("ml-1m", CASES["ml-1m"][0], kinds=("inter", "item", "user"))
    assert code == 0
    assert {name: made[name] for name in ("ml-1m.inter", "ml-1m.item", "ml-1m.user")} == {
        f"ml-1m{suffix}": text for suffix, text in CASES["ml-1m"][1].items()
    }


def test_only_what_is_asked_for_is_converted(run):
    _, made, _ = run("ML-100K", CASES["ml-100k"][0], kinds=("item",))
    assert sorted(made) == ["ml-100k.item", "ml-100k.report.json"]


def test_a_second_run_replaces_the_first(run):
    run("ml-1m", CASES["ml-1m"][0])
    code, made, _ = run("ml-1m", {"ratings.dat": "9::9::1::978300760\n"})
    assert code == 0
    assert made["ml-1m.inter"].splitlines()[1:] == ["9\t9\t1\t978300760"]


def test_fields_have_the_names_they_have_there(run):
    _, made, _ = run("yelp", CASES["yelp"][0], kinds=("inter", "item", "user"))
    assert made["yelp.inter"].splitlines()[0] == (
        "review_id:token\tuser_id:token\tbusiness_id:token\tstars:float\tuseful:float\tfunny:float\tcool:float\tdate:float"
    )
    assert made["yelp.inter"].splitlines()[1].endswith("\t1531001351")
    assert made["yelp.item"].startswith("business_id:token\titem_name:token_seq")
    assert "\t1232858142\t" in made["yelp.user"]


def test_interaction_types(run):
    _, views, _ = run("retailrocket", {"events.csv": EVENTS}, "--interaction_type", "view")
    assert views["retailrocket-view.inter"] == (
        "timestamp:float\tvisitor_id:token\titem_id:token\n"
        "1433221332.117\t1\t7\n1433221999.827\t2\t7\n1433224214.164\t1\t7\n"
    )
    _, bought, _ = run("retailrocket", {"events.csv": EVENTS}, "--interaction_type", "transaction")
    assert bought["retailrocket-transaction.inter"].splitlines()[1] == "1433222276.276\t2\t8\t4000"


def test_duplicate_removal_counts(run):
    _, made, _ = run("retailrocket", {"events.csv": EVENTS}, "--interaction_type", "view", "--duplicate_removal")
    assert made["retailrocket-view.inter"].splitlines() == [
        "timestamp:float\tvisitor_id:token\titem_id:token\tcount:float",
        "1433221999.827\t2\t7\t1",
        "1433224214.164\t1\t7\t2",
    ]


def test_runs_of_clicks_are_merged_in_yoochoose(run):
    clicks = "".join(f"1,2014-04-07T10:51:0{second}.000Z,{item},0\n" for second, item in enumerate("aabaa"))
    flags = ("--interaction_type", "click", "--duplicate_removal")
    _, made, _ = run("yoochoose", {"yoochoose-clicks.dat": clicks}, *flags)
    rows = [line.split("\t") for line in made["yoochoose-clicks.inter"].splitlines()[1:]]
    assert [(row[2], row[3], row[1][-2:]) for row in rows] == [("a", "2", "61"), ("b", "1", "62"), ("a", "2", "64")]


def test_gowalla_keeps_the_first_visit(run):
    visits = "".join(f"0\t2010-10-1{day}T23:55:27Z\t30.2\t-97.7\t22847\n" for day in (9, 8, 7))
    _, made, _ = run("gowalla", {"loc-gowalla_totalCheckins.txt": visits}, "--duplicate_removal")
    assert made["gowalla.inter"].splitlines()[1] == "0\t22847\t1287359727\t30.2\t-97.7\t3"


def test_tmall_goes_to_a_folder_of_its_own(run):
    text = "use_ID,sel_ID,ite_ID,cat_ID,act_ID,time_stamp\n1,2,3,4,0,20151111\n1,2,3,4,0,20151112\n1,2,9,4,1,20151111\n"
    flags = ("--interaction_type", "click", "--duplicate_removal")
    _, made, _ = run("tmall", {"ijcai2016_taobao.csv": text}, *flags)
    assert made["tmall-click/tmall-click.inter"] == (
        "user_id:token\tseller_id:token\titem_id:token\tcategory_id:token\ttimestamp:float\tinteractions:float\n"
        "1\t2\t3\t4\t1447286400\t2\n"
    )


def test_foursquare_makes_a_file_for_each_city(run):
    text = CASES["foursquare"][0]["dataset_TSMC2014_NYC.csv"]
    files = {"dataset_TSMC2014_NYC.csv": text, "dataset_TSMC2014_TKY.csv": text}
    _, made, _ = run("foursquare", files, kinds=("inter", "item"))
    assert (
        made["foursquare_TKY.inter"]
        == made["foursquare_NYC.inter"]
        == ("user_id:token\tvenue_id:token\ttimezone_offset:float\ttimestamp:float\n470\t49bb\t-240\t1333476009\n")
    )
    assert "foursquare_TKY.item" in made


def test_mind_has_every_impression_with_its_label_and_true_noon(run):
    _, made, _ = run("mind_small_train", CASES["mind"][0], kinds=("inter", "item"))
    assert made["mind_small_train.inter"].splitlines()[1:] == [
        "2\t6\t1\t1573344358",
        "1\t5\t0\t1573387558",
        "1\t6\t1\t1573387558",
        "1\t3\t1\t1573463158",
        "1\t4\t0\t1573463158",
    ]
    assert made["mind_small_train.item"].splitlines()[1].startswith("1\tsports\tgolf\t")


def test_diginetica_drops_short_sessions_and_rare_items(run):
    rows = [(session, item) for session in range(5) for item in (1, 2)] + [(7, 1), (8, 1), (8, 3)]
    text = "sessionId;userId;itemId;timeframe;eventdate\n"
    text += "".join(f"{session};NA;{item};{item}000;2016-05-09\n" for session, item in rows)
    _, made, _ = run("diginetica", {"train-item-views.csv": text})
    assert len(made["diginetica.inter"].splitlines()) == 11


@pytest.mark.parametrize("dataset", ["amazon_beauty", "steam", "book-crossing", "lastfm", "ml-10m", "ml-20m"])
def test_the_others_convert(run, dataset):
    files = {
        "amazon_beauty": {"ratings_Beauty.csv": "A,B,5.0,1369699200\n", **CASES["amazon-2014"][0]},
        "steam": CASES["steam"][0],
        "book-crossing": CASES["book-crossing"][0],
        "lastfm": {**CASES["lastfm-hetrec-plays"][0], **CASES["lastfm-hetrec"][0]},
        "ml-10m": CASES["ml-10m"][0],
        "ml-20m": CASES["ml-25m"][0],
    }[dataset]
    code, made, err = run(dataset, files, kinds=("inter", "item"))
    assert code == 0, err
    assert sum(name.endswith((".inter", ".item")) for name in made) == 2


@pytest.mark.parametrize(
    ("dataset", "flags", "message"),
    [
        ("ml-2m", (), "--dataset (ml-2m) must be one of"),
        (
            "retailrocket",
            ("--interaction_type", "viewed"),
            "--interaction_type (viewed) must be one of view, addtocart",
        ),
        ("retailrocket", (), "--interaction_type (none) must be one of"),
        ("ml-1m", ("--convert_user",), "must find one of ratings.dat"),
        ("gowalla", ("--convert_item",), "--convert_item must not be asked of gowalla"),
        ("ml-1m", ("--item_feature_name", "x"), "must be none"),
    ],
)
def test_mistakes(run, dataset, flags, message):
    code, made, err = run(dataset, {}, *flags)
    assert (code, made) == (2, {})
    assert message in err
    assert len(err.splitlines()) == 1


def test_something_must_be_asked_for(run):
    assert "one of --convert_inter" in run("ml-1m", {}, kinds=())[2]


def test_every_drop_in_has_interactions():
    for entries in drop_ins().values():
        for entry in entries:
            assert all(tables[0].kind == "inter" for tables in entry.variants.values())
