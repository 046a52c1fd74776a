"""Every named source, from small files in the publisher's exact format to the bytes expected."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest

from recbole_lsti.converters.sources import get, locate, registry

RATED = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
STEAM = (
    "{u'username': u'Al \"The\" Man', u'hours': 12.5, u'products': 9, u'product_id': u'440', u'page_order': 0, "
    "u'date': u'2017-12-17', u'text': u'It\\'s good', u'early_access': False, u'page': 1}\n"
)
STEAM_GAME = (
    "{u'id': u'440', u'title': u'Team', u'genres': [u'Free to Play', u'Action'], u'price': u'Free to Play', "
    "u'release_date': u'2007-10-10'}\n"
)
IDOMAAR = (
    'event.session\t287144\t1390231051\t{"playtime":500}\t{"subjects":[{"type":"user","id":44361}],"objects":'
    '[{"type":"track","id":4698874,"playstart":0,"playtime":200},{"type":"track","id":838286,"playstart":210,'
    '"playtime":290}]}\n'
)
OTTO = (
    '{"session": 7, "events": [{"aid": 1, "ts": 1659304800025, "type": "clicks"}, '
    '{"aid": 2, "ts": 1659304904511, "type": "carts"}]}\n'
)
PEOPLE = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
MIND = (
    "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0\n"
    "2\tU1\t11/10/2019 12:05:58 PM\tN1 N2\tN5-0 N6-1\n"
    "3\tU2\t11/10/2019 12:05:58 AM\t\tN6-1\n"
)
YELP = {
    "yelp_academic_dataset_review.json": '{"review_id":"r","user_id":"u","business_id":"b","stars":4.0,"useful":1,'
    '"funny":0,"cool":0,"text":"x","date":"2018-07-07 22:09:11"}\n',
    "yelp_academic_dataset_business.json": '{"business_id":"b","name":"The Bar","city":"Rome","stars":4.5,'
    '"review_count":3,"is_open":1,"categories":"Wine Bars, Pubs"}\n',
    "yelp_academic_dataset_user.json": '{"user_id":"u","name":"Ann","review_count":3,'
    '"yelping_since":"2009-01-25 04:35:42","fans":1}\n',
}

# source: files, then suffix to expected text (or only its first lines)
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ml-100k": (
        {
            "u.data": "196\t242\t3\t881250949\n",
            "u.item": "1|Die Büchse (1929)|01-Jan-1929||http://x|0|1|0|0|1|" + "0|" * 13 + "0\n",
            "u.user": "1|24|M|technician|85711\n",
        },
        {
            ".inter": RATED + "196\t242\t3\t881250949\n",
            ".item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "1\tDie Büchse\t1929\tAction Children's\n",
            ".user": PEOPLE + "1\t24\tM\ttechnician\t85711\n",
        },
    ),
    "ml-1m": (
        {
            "ratings.dat": "1::1193::5::978300760\n1::661::3::978300750\n",
            "movies.dat": "1::City of Lost Children, The (Cité, La) (1995)::Adventure|Sci-Fi\n",
            "users.dat": "1::F::1::10::48067\n",
        },
        {
            ".inter": RATED + "1\t661\t3\t978300750\n1\t1193\t5\t978300760\n",
            ".item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n"
            "1\tCity of Lost Children, The (Cité, La)\t1995\tAdventure Sci-Fi\n",
            ".user": PEOPLE + "1\t1\tF\t10\t48067\n",
        },
    ),
    "ml-10m": (
        {
            "ratings.dat": "1::122::5::838985046\n2::1::3.5::838985040\n",
            "movies.dat": "1::Toy Story (1995)::Animation\n",
        },
        {".inter": RATED + "2\t1\t3.5\t838985040\n1\t122\t5\t838985046\n"},
    ),
    "ml-25m": (
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n",
            "movies.csv": 'movieId,title,genres\n11,"American President, The (1995)",Comedy|Drama\n'
            "12,Nameless,(no genres listed)\n",
        },
        {
            ".inter": RATED + "1\t296\t5.0\t1147880044\n",
            ".item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n"
            "11\tAmerican President, The\t1995\tComedy Drama\n12\tNameless\t\t\n",
        },
    ),
    "amazon-2014": (
        {
            "reviews_Beauty_5.json": '{"reviewerID":"A1","asin":"B0","overall":5.0,"unixReviewTime":1355616000}\n',
            "meta_Beauty.json": "{'asin': 'B0', 'title': 'Soap', 'price': 3.5, 'salesRank': {'Beauty': 77}, "
            "'brand': \"L'Oreal\", 'categories': [['Beauty', 'Bath & Body'], ['Gifts']]}\n",
        },
        {
            ".inter": RATED + "A1\tB0\t5.0\t1355616000\n",
            ".item": "item_id:token\ttitle:token_seq\tsales_type:token\tsales_rank:float\tcategories:token_seq\t"
            "price:float\tbrand:token\nB0\tSoap\tBeauty\t77\tBeauty Bath_&_Body Gifts\t3.5\tL'Oreal\n",
        },
    ),
    "amazon-2018": (
        {
            "Gift_Cards_5.json": '{"overall":4.0,"reviewerID":"A1","asin":"B0","unixReviewTime":1529193600}\n',
            "meta_Gift_Cards.json": '{"category":["Gift Cards","Gifts"],"title":"A Card","brand":"Me","asin":"B0",'
            '"price":"$1,025.50"}\n',
        },
        {
            ".inter": RATED + "A1\tB0\t4.0\t1529193600\n",
            ".item": "item_id:token\ttitle:token_seq\tcategories:token_seq\tbrand:token\tprice:float\n"
            "B0\tA Card\tGift_Cards Gifts\tMe\t1025.50\n",
        },
    ),
    "amazon-2023": (
        {
            "All_Beauty.jsonl": '{"rating":5.0,"title":"x","asin":"B1","parent_asin":"B0","user_id":"AG",'
            '"timestamp":1588687728923}\n',
            "meta_All_Beauty.jsonl": '{"main_category":"All Beauty","title":"Howard LC0008","average_rating":4.8,'
            '"rating_number":10,"price":"9.99","store":"Howard","categories":[],"parent_asin":"B0"}\n',
        },
        {
            ".inter": RATED + "AG\tB0\t5.0\t1588687728.923\n",
            ".item": "item_id:token\ttitle:token_seq\tmain_category:token\tcategories:token_seq\tstore:token\t"
            "average_rating:float\trating_number:float\tprice:float\n"
            "B0\tHoward LC0008\tAll Beauty\t\tHoward\t4.8\t10\t9.99\n",
        },
    ),
    "steam": (
        {"steam_reviews.json": STEAM, "steam_games.json": STEAM_GAME},
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tplay_hours:float\tproducts:float\t"
            "early_access:token\tfound_funny:token\tcompensation:token\n"
            '"Al ""The"" Man"\t440\t1513468800\t12.5\t9\tfalse\t\t\n',
            ".item": "item_id:token\ttitle:token_seq\tdeveloper:token\tpublisher:token\tgenres:token_seq\t"
            "tags:token_seq\tspecs:token_seq\tprice:float\tsentiment:token\ttimestamp:float\n"
            "440\tTeam\t\t\tFree_to_Play Action\t\t\t0\t\t1191974400\n",
        },
    ),
    "yelp": (
        YELP,
        {
            ".inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\tuseful:float\tfunny:float\t"
            "cool:float\nu\tb\t4.0\t1531001351\t1\t0\t0\n",
            ".item": "item_id:token\titem_name:token_seq\taddress:token_seq\tcity:token_seq\tstate:token\t"
            "postal_code:token\tlatitude:float\tlongitude:float\titem_stars:float\titem_review_count:float\t"
            "is_open:float\tcategories:token_seq\nb\tThe Bar\t\tRome\t\t\t\t\t4.5\t3\t1\tWine_Bars Pubs\n",
        },
    ),
    "yoochoose": (
        {"yoochoose-clicks.dat": "1,2014-04-07T10:51:09.277Z,214536502,0\n"},
        {".inter": "user_id:token\titem_id:token\ttimestamp:float\tcategory:token\n1\t214536502\t1396867869.277\t0\n"},
    ),
    "yoochoose-buys": (
        {"yoochoose-buys.dat": "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n"},
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tprice:float\tquantity:float\n"
            "420374\t214537888\t1396809898.314\t12462\t1\n"
        },
    ),
    "diginetica": (
        {
            "train-item-views.csv": "sessionId;userId;itemId;timeframe;eventdate\n"
            "1;NA;81766;526309;2016-05-09\n1;NA;31331;1031018;2016-05-09\n",
            "products.csv": "itemId;pricelog2;product.name.tokens\n81766;10;4875,776,56689\n",
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tbuyer_id:token\n"
            "1\t81766\t1462752526.309\t\n1\t31331\t1462753031.018\t\n",
            ".item": "item_id:token\tprice_log2:float\tname:token_seq\n81766\t10\t4875 776 56689\n",
        },
    ),
    "diginetica-buys": (
        {
            "train-purchases.csv": "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n"
            "150;18278;7100;2016-05-06;1;25\n"
        },
        {".inter": "user_id:token\titem_id:token\ttimestamp:float\tbuyer_id:token\n150\t25\t1462492807.1\t18278\n"},
    ),
    "retailrocket": (
        {
            "events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n",
            "item_properties_part1.csv": "timestamp,itemid,property,value\n1435460400000,460429,categoryid,1338\n"
            "1441508400000,206783,888,1116713 960601 n277.200\n1439089200000,460429,categoryid,9\n",
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tbehavior:token\n"
            "257597\t355908\t1433221332.117\tview\n",
            ".item": "item_id:token\tcategory:token\tsince_ms:float\n460429\t9\t1439089200000\n",
        },
    ),
    "taobao": (
        {"UserBehavior.csv": "1,2268318,2520377,pv,1511544070\n" * 200 + "1,2268318,2520377,pv,1511539199\n"},
        {".inter": "user_id:token\titem_id:token\ttimestamp:float\tcategory:token\tbehavior:token\n"},
    ),
    "tmall": (
        {
            "user_log_format1.csv": "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
            "328862,323294,833,2882,2661,829,0\n328862,844400,1271,2882,2661,1111,2\n"
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tbehavior:token\tcategory:token\tseller:token\t"
            "brand:token\n328862\t323294\t1409270400\tclick\t833\t2882\t2661\n"
            "328862\t844400\t1415664000\tbuy\t1271\t2882\t2661\n"
        },
    ),
    "rees46": (
        {
            "2019-Oct.csv": "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
            "user_session\n2019-10-01 00:00:00 UTC,view,44600062,2103,electronics.smartphone,shiseido,35.79,541312140,"
            "72d7\n"
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tbehavior:token\tprice:float\tcategory:token_seq\t"
            "brand:token\tsession_id:token\n"
            "541312140\t44600062\t1569888000\tview\t35.79\telectronics smartphone\tshiseido\t72d7\n"
        },
    ),
    "otto": (
        {"otto-recsys-train.jsonl": OTTO},
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tbehavior:token\n"
            "7\t1\t1659304800.025\tclicks\n7\t2\t1659304904.511\tcarts\n"
        },
    ),
    "mind": (
        {"behaviors.tsv": MIND, "news.tsv": 'N1\tsports\tgolf\t"A Title\tAbout it\thttps://x\t[]\t[]\n'},
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tbehavior:token\n"
            "U2\tN6\t1573344358\tclick\n"
            "U1\tN1\t1573387558\thistory\nU1\tN2\t1573387558\thistory\nU1\tN6\t1573387558\tclick\n"
            "U1\tN3\t1573463158\tclick\n",
            ".item": "item_id:token\tcategory:token\tsub_category:token\ttitle:token_seq\tabstract:token_seq\n"
            'N1\tsports\tgolf\t"""A Title"\tAbout it\n',
        },
    ),
    "gowalla": (
        {"loc-gowalla_totalCheckins.txt": "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"},
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tlatitude:float\tlongitude:float\n"
            "0\t22847\t1287532527\t30.2359091167\t-97.7951395833\n"
        },
    ),
    "foursquare": (
        {
            "dataset_TSMC2014_NYC.csv": "userId,venueId,venueCategoryId,venueCategory,latitude,longitude,"
            "timezoneOffset,utcTimestamp\n470,49bb,4bf5,Arts & Crafts Store,40.7,-74.0,-240,"
            "Tue Apr 03 18:00:09 +0000 2012\n"
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\ttimezone_offset:float\n"
            "470\t49bb\t1333476009\t-240\n",
            ".item": "item_id:token\tvenue_category_id:token\tvenue_category_name:token\tlatitude:float\t"
            "longitude:float\n49bb\t4bf5\tArts & Crafts Store\t40.7\t-74.0\n",
        },
    ),
    "lastfm-1k": (
        {
            "userid-timestamp-artid-artname-traid-traname.tsv": "user_000001\t2009-05-04T23:08:57Z\tf1b1\tDeep Dish\t\t"
            'Fuck Me Im Famous "live"\nuser_000001\t2009-05-04T13:54:10Z\ta7f7\tUnderworld\tdc39\tBoy\n',
            "userid-profile.tsv": "#id\tgender\tage\tcountry\tregistered\nuser_000001\tm\t\tJapan\tAug 13, 2006\n",
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tartist_id:token\n"
            "user_000001\tdc39\t1241445250\ta7f7\n"
            'user_000001\t"Deep_Dish_-_Fuck_Me_Im_Famous_""live"""\t1241478537\tf1b1\n',
            ".user": "user_id:token\tgender:token\tage:float\tcountry:token\nuser_000001\tm\t\tJapan\n",
        },
    ),
    "lastfm-hetrec": (
        {
            "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t52\t13\t1\t4\t2009\n",
            "artists.dat": "id\tname\turl\tpictureURL\n1\tMALICE MIZER\thttp://x\thttp://y\n",
        },
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\ttag_id:token\n2\t52\t1238544000\t13\n",
            ".item": "item_id:token\tname:token_seq\n1\tMALICE MIZER\n",
        },
    ),
    "lastfm-hetrec-plays": (
        {"user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n"},
        {".inter": "user_id:token\titem_id:token\tweight:float\n2\t51\t13883\n"},
    ),
    "30music": (
        {"sessions.idomaar": IDOMAAR},
        {
            ".inter": "user_id:token\titem_id:token\ttimestamp:float\tsession_id:token\tplaytime:float\n"
            "44361\t4698874\t1390231051\t287144\t200\n44361\t838286\t1390231261\t287144\t290\n"
        },
    ),
    "book-crossing": (
        {
            "BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n',
            "BX-Books.csv": '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"\n'
            '"0195153448";"Café &amp; Mythology";"Mark P. O. Morford";"2002";"Oxford University Press"\n',
            "BX-Users.csv": '"User-ID";"Location";"Age"\n"1";"nyc, new york, usa";NULL\n',
        },
        {
            ".inter": "user_id:token\titem_id:token\trating:float\n276725\t034545104X\t0\n",
            ".user": "user_id:token\tlocation:token_seq\tage:float\n1\tnyc new_york usa\t\n",
            ".item": "item_id:token\tbook_title:token_seq\tbook_author:token_seq\tpublication_year:float\t"
            "publisher:token_seq\n"
            "0195153448\tCafé &amp; Mythology\tMark P. O. Morford\t2002\tOxford University Press\n",
        },
    ),
    "goodbooks": (
        {
            "ratings.csv": "user_id,book_id,rating\n1,258,5\n",
            "books.csv": "book_id,authors,original_publication_year,title,language_code,average_rating\n"
            '258,"Suzanne Collins, Someone Else",2008.0,"The Hunger Games (#1)",eng,4.34\n',
        },
        {
            ".inter": "user_id:token\titem_id:token\trating:float\n1\t258\t5\n",
            ".item": "item_id:token\ttitle:token_seq\tauthors:token_seq\tpublication_year:float\tlanguage:token\t"
            "average_rating:float\n258\tThe Hunger Games (#1)\tSuzanne_Collins Someone_Else\t2008.0\teng\t4.34\n",
        },
    ),
}
LATIN = {"u.item", "movies.dat", "BX-Books.csv"}


def write_files(folder, files):
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("latin-1" if name in LATIN else "utf-8"))


@pytest.mark.parametrize("source", CASES)
def test_the_publishers_format(cli, tmp_path, source):
    files, expected = CASES[source]
    folder = tmp_path / "raw"
    folder.mkdir()
    write_files(folder, files)
    result = cli(folder, "--source", source)
    assert result.code == 0, result.err
    for suffix, text in expected.items():
        got = result.text(suffix)
        assert got[: len(text)] == text
        if text.count("\n") > 1:
            assert got == text


def test_every_source_has_a_case_or_shares_its_tables():
    tested = {get(name).tables for name in CASES}
    assert {name for name, source in registry().items() if source.tables not in tested} == {"foursquare-tky"}


def test_the_two_cities_of_foursquare_are_not_mixed(cli, tmp_path):
    text = CASES["foursquare"][0]["dataset_TSMC2014_NYC.csv"]
    write_files(tmp_path, {"dataset_TSMC2014_NYC.csv": text, "dataset_TSMC2014_TKY.csv": text.replace("470", "7")})
    assert cli(tmp_path, "--source", "foursquare", name="nyc").column("user_id") == ["470"]
    assert cli(tmp_path, "--source", "foursquare-tky", name="tky").column("user_id") == ["7"]


def test_taobao_rejects_days_outside_the_log(cli, tmp_path):
    write_files(tmp_path, CASES["taobao"][0])
    result = cli(tmp_path / "UserBehavior.csv", "--source", "taobao")
    assert len(result.rows()) == 201
    assert "impossible timestamp" in result.text(".rejects.tsv")


def test_tmall_of_2016(cli, log):
    path = log("use_ID,sel_ID,ite_ID,cat_ID,act_ID,time_stamp\n1,2,3,4,1,20151111\n", "ijcai2016_taobao.csv")
    result = cli(path, "--source", "tmall")
    assert result.rows()[1] == ["1", "3", "1447200000", "buy", "4", "2"]


def test_ratings_only_releases_of_amazon(cli, log):
    old = log("A1,B0,5.0,1369699200\n", "ratings_Beauty.csv")
    assert cli(old, "--source", "amazon-2014", name="old").rows()[1] == ["A1", "B0", "5.0", "1369699200"]
    newer = log("B0,A1,5.0,1369699200\n", "All_Beauty.csv")
    assert cli(newer, "--source", "amazon-2018", name="newer").rows()[1] == ["A1", "B0", "5.0", "1369699200"]
    newest = log("user_id,parent_asin,rating,timestamp\nAG,B0,5.0,1588687728923\n", "All_Beauty.csv")
    assert cli(newest, "--source", "amazon-2023", name="newest").rows()[1] == ["AG", "B0", "5.0", "1588687728.923"]


def test_a_source_inside_one_archive(cli, tmp_path):
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for name, text in CASES["ml-1m"][0].items():
            archive.writestr(f"ml-1m/{name}", text.encode("latin-1"))
    result = cli(tmp_path / "ml-1m.zip", "--source", "ml-1m")
    for suffix, text in CASES["ml-1m"][1].items():
        assert result.text(suffix) == text


@pytest.mark.parametrize("packed", ["ratings.dat.gz", "ml-1m.zip", "deep/ratings.dat"])
def test_a_file_that_is_there_twice_is_refused(cli, tmp_path, packed):
    text, folder = CASES["ml-1m"][0]["ratings.dat"].encode(), tmp_path / "ml-1m"
    (folder / packed).parent.mkdir(parents=True)
    (folder / "ratings.dat").write_bytes(text)
    if packed.endswith(".zip"):
        with zipfile.ZipFile(folder / packed, "w") as archive:
            archive.writestr("ml-1m/ratings.dat", text)
    else:
        (folder / packed).write_bytes(gzip.compress(text) if packed.endswith(".gz") else text)
    for files in ([folder], sorted(folder.iterdir())):
        result = cli(*files, "--source", "ml-1m")
        assert result.code == 2
        assert "must find each file once; name one of them" in result.err
    assert len(cli(folder / packed.split("/")[0], "--source", "ml-1m").rows()) == 3


def test_one_file_that_two_folders_lead_to_is_refused(cli, tmp_path):
    folder = tmp_path / "all" / "train"
    folder.mkdir(parents=True)
    write_files(folder, {"behaviors.tsv": MIND})
    result = cli(tmp_path / "all", folder, "--source", "mind")
    assert "must find each file once" in result.err


@pytest.mark.parametrize(
    ("source", "whole", "core"),
    [
        ("amazon-2018", "All_Beauty.json", "All_Beauty_5.json"),
        ("amazon-2018", "All_Beauty.json", "All_Beauty_5.json.gz"),
        ("amazon-2014", "reviews_Beauty.json", "reviews_Beauty_5.json"),
    ],
)
def test_a_5_core_beside_the_whole_is_refused(cli, tmp_path, source, whole, core):
    row = b'{"overall":4.0,"reviewerID":"A1","asin":"B0","unixReviewTime":1529193600}\n'
    (tmp_path / whole).write_bytes(row)
    (tmp_path / core).write_bytes(gzip.compress(row) if core.endswith(".gz") else row)
    for files in ([tmp_path], [tmp_path / whole, tmp_path / core]):
        result = cli(*files, "--source", source)
        assert result.code == 2
        wanted = f"(finds {tmp_path / whole} and its 5-core {tmp_path / core}) must find one of them; name that"
        assert wanted in result.err
    assert len(cli(tmp_path / core, "--source", source).rows()) == 2


def test_a_damaged_archive(cli, tmp_path, nothing_left):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ratings.dat", CASES["ml-1m"][0]["ratings.dat"])
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"PK\0\0"))
    result = cli(path, "--source", "ml-1m")
    assert result.code == 2
    assert result.err.startswith(f"recbole-lsti convert: {path} must be a whole, readable file: Bad magic number")
    assert len(result.err.splitlines()) == 1
    nothing_left()


def test_a_history_is_kept_once_where_two_files_have_it_in_the_same_line(cli, tmp_path):
    for part, click in (("train", "N3-1"), ("dev", "N4-1")):
        (tmp_path / part).mkdir()
        write_files(tmp_path / part, {"behaviors.tsv": f"1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\t{click}\n"})
    result = cli(tmp_path / "train", tmp_path / "dev", "--source", "mind")
    assert result.column("item_id") == ["N1", "N2", "N3", "N4"]


def test_parts_of_one_name_may_be_given_one_by_one(cli, tmp_path):
    for part in ("train", "dev"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "behaviors.tsv").write_text(f"1\t{part}\t11/11/2019 9:05:58 AM\tN1\tN3-1 N4-0\n")
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as archive:
            archive.write(tmp_path / part / "behaviors.tsv", "behaviors.tsv")
    assert cli(tmp_path, "--source", "mind").code == 2
    for kind in ("{}/behaviors.tsv", "{}", "{}.zip"):
        files = [tmp_path / kind.format(part) for part in ("train", "dev")]
        result = cli(*files, "--source", "mind", "--overwrite")
        assert set(result.column("user_id")) == {"train", "dev"}, result.err
    result = cli(tmp_path / "train", tmp_path / "train.zip", "--source", "mind", "--overwrite")
    assert "must find each file once" in result.err


def test_lines_that_are_lost_count_as_lines_where_others_make_many_rows(cli, tmp_path):
    impressions = " ".join(f"N{n}-0" for n in range(30))
    lines = [f"{n}\tu{n}\t11/11/2019 9:05:58 AM\tN1\t{impressions}" for n in range(97)] + ["ragged"] * 3
    (tmp_path / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    result = cli(tmp_path / "behaviors.tsv", "--source", "mind")
    assert "bad rows of inter (3.00% of 100) must be at most 1.00%" in result.err


def test_what_macos_adds_to_an_archive_is_no_file(cli, tmp_path):
    with zipfile.ZipFile(tmp_path / "MIND.ZIP", "w") as archive:
        archive.writestr("behaviors.tsv", MIND)
        archive.writestr("__MACOSX/._behaviors.tsv", "\0\5")
    assert len(cli(tmp_path / "MIND.ZIP", "--source", "mind").rows()) == 6


def test_a_source_whose_files_are_compressed(cli, tmp_path):
    for name, text in CASES["amazon-2014"][0].items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    result = cli(tmp_path, "--source", "amazon-2014")
    assert result.text(".item") == CASES["amazon-2014"][1][".item"]


@pytest.mark.parametrize(
    ("source", "name", "line", "cut", "reason"),
    [
        ("otto", "otto-recsys-train.jsonl", OTTO, '{"session": 8, "events": [{"aid": 1', "not a JSON object"),
        ("30music", "sessions.idomaar", IDOMAAR, IDOMAAR[:100], "empty user_id"),
    ],
)
def test_a_cut_last_line_is_rejected(cli, log, source, name, line, cut, reason):
    result = cli(log(line * 100 + cut, name), "--source", source)
    assert len(result.rows()) == 201
    assert [row[1:] for row in result.rows(".rejects.tsv")[1:]] == [["101", reason, cut.replace("\t", "\\t")]]


def test_the_share_of_bad_rows_is_one_of_rows_where_lines_hold_many(cli, log, nothing_left):
    events = ", ".join(f'{{"aid": {n}, "ts": 1659304800025, "type": "clicks"}}' for n in range(100))
    good, bad = (f'{{"session": 7, "events": [{part}]}}\n' for part in (events, events.replace("1659304800025", "1")))
    result = cli(log(good * 3 + bad.replace('"ts": 1,', '"ts": -1,'), "otto-recsys-train.jsonl"), "--source", "otto")
    assert "bad rows of inter (25.00% of 400) must be at most 1.00%" in result.err
    nothing_left()


def test_zone_grain_and_encoding_reach_a_source(cli, log):
    path = log("1,2014-04-07T10:51:09.277Z,214536502,0\n", "yoochoose-clicks.dat")
    result = cli(path, "--source", "yoochoose", "--time-grain", "day", "--encoding", "utf-8")
    assert result.column("timestamp") == ["1396828800"]


def test_a_missing_column_of_a_source_names_what_is_there(cli, log):
    path = log("userId,movie,rating,timestamp\n1,2,3,4\n", "ratings.csv")
    result = cli(path, "--source", "ml-25m")
    assert result.code == 2
    assert "column movieId must be one of userId, movie, rating, timestamp (did you mean movie?)" in result.err


def test_meta_files_are_no_interactions(tmp_path):
    write_files(tmp_path, {"meta_Gift_Cards.json": "{}", "Gift_Cards.json": json.dumps({"asin": "x"})})
    tables = locate(get("amazon-2018").tables, [tmp_path], "amazon-2018")
    assert [(table.kind, [path.name for path in table.files]) for table in tables] == [
        ("inter", ["Gift_Cards.json"]),
        ("item", ["meta_Gift_Cards.json"]),
    ]
