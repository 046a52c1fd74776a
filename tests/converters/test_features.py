"""Values become what RecBole reads: cleaned text, tokens, numbers, sequences, scaled numbers."""

from __future__ import annotations

import json
import statistics

import pytest

HEADER = "user_id,item_id,timestamp,f\n"


@pytest.fixture
def convert_values(cli, log):
    """Convert values of one feature; return what is written."""

    def run(values, spec, *flags):
        lines = "".join("a,x,{},{}\n".format(at, '"' + v.replace('"', '""') + '"') for at, v in enumerate(values))
        result = cli(log(HEADER + lines), "--feature", f"f:{spec}", *flags)
        assert result.code == 0, result.err
        return result.column("f")

    return run


def test_text_loses_tabs_line_ends_and_outer_space(convert_values):
    assert convert_values(["  a\tb\r\nc\x01\x7fd  "], "token") == ["a b c d"]


def test_missing_tokens_are_empty(convert_values):
    assert convert_values(["", "NA", "null", "None", "nan", "x"], "token") == ["", "", "", "", "", "x"]


def test_an_identifier_spelt_like_a_missing_value_survives(cli, log):
    result = cli(log("user_id,item_id,timestamp\nNA,null,1\n_NA,None,2\nx,y,3\n"))
    assert result.column("user_id") == ["_NA", "__NA", "x"]
    assert result.column("item_id") == ["_null", "_None", "y"]


def test_words(convert_values):
    assert convert_values(["  The   long  title "], "token_seq") == ["The long title"]


def test_values_between_separators_become_one_token_each(convert_values):
    values = ["Home & Kitchen > Bath > Soft Towels", " > ", "One"]
    assert convert_values(values, "token_seq:>") == ["Home_&_Kitchen Bath Soft_Towels", "", "One"]


def test_json_arrays_are_sequences_and_nested_ones_are_flattened(convert_values):
    values = [json.dumps(["a b", "c"]), json.dumps([["A", "B b"], ["C"]]), "[]"]
    assert convert_values(values, "token_seq") == ["a_b c", "A B_b C", ""]


def test_lists_as_python_prints_them(convert_values):
    lists = [["Action", "Sci-Fi"], ["L'Oreal", "a, b"], ['say "x"', "d'or"], ["both ' and \""], ["x"]]
    values = [str(each) for each in lists]
    assert convert_values(values, "token_seq") == [
        "Action Sci-Fi", "L'Oreal a,_b", '"say_""x"" d\'or"', '"both_\'_and_"""', "x",
    ]  # fmt: skip
    assert convert_values(["[broken 'list]", "[]"], "token_seq", "--overwrite") == ["[broken 'list]", ""]


def test_float_sequences(convert_values):
    assert convert_values(["1 2.5", "3"], "float_seq") == ["1 2.5", "3"]
    assert convert_values(["1|2.5"], "float_seq:|", "--overwrite") == ["1 2.5"]


@pytest.mark.parametrize("bad", ["abc", "1e308", "inf", "1_000", "0x10", "1,5,2", "1,000"])
def test_what_is_no_finite_float32_is_rejected(cli, log, bad):
    lines = "".join(f"a,x,{at},1.5\n" for at in range(200))
    result = cli(log(HEADER + lines + f'a,x,200,"{bad}"\n'), "--feature", "f:float")
    assert len(result.rows()) == 201
    assert result.rows(".rejects.tsv")[1][2] == "f is not a finite float"


def test_a_decimal_comma_is_told_about_the_flag_that_reads_it(cli, log):
    result = cli(log('user,item,f\na,x,1.5\na,y,"2,5"\n'), "--feature", "f:float", "--max-reject-share", "1")
    assert result.rows(".rejects.tsv")[1][2] == "f has a decimal comma, which --decimal , reads"
    result = cli(log('user,item,f\na,x,1.5\na,y,"2,5"\n'), "--feature", "f:float", "--overwrite")
    assert result.code == 2
    assert "most often: f has a decimal comma, which --decimal , reads, first in" in result.err


def test_numbers_are_written_as_they_were(convert_values):
    assert convert_values(["5", "5.0", "1e3", "", "NaN"], "float") == ["5", "5.0", "1e3", "", ""]


def test_a_bad_float_sequence_is_rejected(cli, log):
    lines = "".join(f"a,x,{at},1 2\n" for at in range(200))
    result = cli(log(HEADER + lines + "a,x,200,1 two\n"), "--feature", "f:float_seq")
    assert result.rows(".rejects.tsv")[1][2] == "f is not a finite float_seq"


def test_minmax(convert_values):
    assert convert_values(["2", "4", "", "3"], "float", "--normalize", "f=minmax") == ["0.0", "1.0", "", "0.5"]


def test_z(convert_values):
    values = [float(v) for v in convert_values(["1", "2", "3", "6"], "float", "--normalize", "f=z")]
    assert statistics.fmean(values) == pytest.approx(0, abs=1e-6)
    assert statistics.pstdev(values) == pytest.approx(1, abs=1e-6)


def test_log1p(convert_values):
    assert convert_values(["0", "1"], "float", "--normalize", "f=log1p") == ["0.0", "0.693147"]


@pytest.mark.parametrize("how", ["minmax", "z"])
def test_a_constant_scales_to_zero(convert_values, how):
    assert convert_values(["7", "7"], "float", "--normalize", f"f={how}") == ["0.0", "0.0"]


def test_a_feature_of_items_can_be_scaled(cli, log):
    items = log("item_id,price\nx,10\ny,30\n", "items.csv")
    result = cli(log("user_id,item_id\na,x\n"), "--items", items, "--normalize", "price=minmax")
    assert result.column("price", ".item") == ["0.0", "1.0"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--normalize", "f=max"], "--normalize f (max) must be one of minmax, z, log1p (did you mean minmax?)"),
        (["--normalize", "g=z"], "--normalize g must name a float field, one of f"),
        (["--normalize", "f=log1p"], "must meet values above -1 only"),
        (["--normalize", "f"], "must be of the form NAME=VALUE"),
    ],
)
def test_scalings_that_cannot_be(cli, log, nothing_left, flags, message):
    result = cli(log(HEADER + "a,x,1,-3\n"), "--feature", "f:float", *flags)
    assert result.code == 2
    assert message in result.err
    nothing_left()
