"""The command line: RecBole's flags, any setting behind them, mistakes in one line."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

import recbole_lsti
import recbole_lsti.converters
from recbole_lsti.cli import build_parser, format_result, main, parse_settings

ROOT = Path(__file__).resolve().parents[1]


def test_settings_with_and_without_an_equals_sign():
    words = ["--hidden_size=8", "--fusion", "sum", "--topk=[5,10]", "--clip_grad_norm={'max_norm':1}", "--a=b=c"]
    expected = {"hidden_size": "8", "fusion": "sum", "topk": "[5,10]", "clip_grad_norm": "{'max_norm':1}", "a": "b=c"}
    assert parse_settings(words) == expected
    assert parse_settings(["--x=1", "--x=1"]) == {"x": "1"}
    assert parse_settings(["--force_unknown_keys", "--x", "-1"]) == {"force_unknown_keys": "True", "x": "-1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["oops"], r"argument \(oops\) must be --key=value or --key value"),
        (["--x"], r"argument \(--x\) must have a value: --x=value"),
        (["--x=1", "--x=2"], r"argument \(--x\) must be given once, not as 1 and 2"),
    ],
)
def test_settings_that_are_none(words, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(words)


def test_every_flag_of_recboles_program_is_there():
    flags = ["-m", "SASRec", "-d", "tiny", "--config_files", "a.yaml", "--nproc", "2", "--ip", "h", "--port", "1"]
    flags += ["--world_size", "4", "--group_offset", "2", "--x=1"]
    known, rest = build_parser().parse_known_args(["train", *flags])
    wanted = {
        **{"command": "train", "model": "SASRec", "dataset": "tiny", "config_files": "a.yaml", "nproc": 2},
        **{"ip": "h", "port": "1", "world_size": 4, "group_offset": 2},
    }
    assert vars(known).items() >= wanted.items()
    assert rest == ["--x=1"]
    assert vars(build_parser().parse_args(["train"]))["model"] is None, "config files may name it, see run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--hidden_siz=8"], "config key (hidden_siz) must be one that is read (did you mean hidden_size?)"),
        (["train", "--hidden_size=15"], "hidden_size (15) must be divisible by n_heads (2)"),
        (["train", "-d", "nothere"], "dataset (nothere) must be a folder in data_path"),
        (["train", "--config_files", "none.yaml"], "config file (none.yaml) must exist"),
        (["train", "--nproc", "2", "--epoch=1"], "config key (epoch) must be one that is read (did you mean epochs?)"),
        (["recommend", "none.pth", "--users", "1"], "checkpoint (none.pth) must exist"),
        (["recommend", "x.pth", "--history", "1 2", "--times", "5 x"], "times (5 x) must be numbers, separated by"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:  # argparse leaves by itself
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{recbole_lsti.__version__}\n"


COMMANDS = ["train", "tune", "recommend", "convert", "check-data", "benchmark", "compare", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    try:
        status = main([command, "--help"])
    except SystemExit as stop:  # argparse leaves by itself
        status = stop.code
    assert status == 0
    assert f"recbole-lsti {command}" in capsys.readouterr().out.split("example")[1]


def test_train_prints_metrics_checkpoint_and_the_next_command(tiny, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    flags = ["-d", "tiny", "--data_path", str(tiny), "--epochs=1", "--hidden_size=8", "--show_progress=False"]
    program = ROOT / "run_recbole_lsti.py"
    command = (
        [sys.executable, str(program)] if program.is_file() else [sys.executable, "-m", "recbole_lsti.cli", "train"]
    )
    done = subprocess.run([*command, *flags], cwd=work, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "LSTI on tiny"
    assert lines[1].split() == ["validation", "test", "test,", "unseen", "items"]
    assert {line.split()[0] for line in lines[2:7]} == {"recall@10", "mrr@10", "ndcg@10", "hit@10", "precision@10"}
    checkpoint = next(line.split(": ")[1] for line in lines if line.startswith("checkpoint: "))
    assert (work / checkpoint).is_file()
    assert lines[-1].startswith(f"try next:   recbole-lsti recommend {checkpoint}")
    assert done.stderr == ""


def test_the_table_leaves_out_what_was_not_measured():
    result = {
        **{
            "model": "S3Rec",
            "dataset": "tiny",
            "best_valid_result": None,
            "test_result": {"hit@10": 0.5},
            "test_result_unseen": None,
        },
        **{"best_epoch": 1, "epochs_run": 1, "train_seconds": 2.0, "n_parameters": 1000, "peak_rss_mib": 1.0},
        **{"checkpoint_file": None},
    }
    text = format_result(result)
    assert "validation" not in text
    assert "1,000 parameters" in text


def test_a_metric_without_a_row_is_a_dash():
    metrics = {"explorerecall@10": 0.5, "repeatrecall@10": None}
    result = {"model": "LSTI", "dataset": "d", "best_valid_result": metrics, "test_result": metrics}
    result |= {"test_result_unseen": None, "checkpoint_file": None, "best_epoch": 1, "epochs_run": 1}
    result |= {"train_seconds": 1, "n_parameters": 1, "peak_rss_mib": 1, "train_steps": 600}
    lines = format_result(result).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["explorerecall@10", "0.5000", "0.5000"],
        ["repeatrecall@10", "-", "-"],
    ]
    assert len({len(line) for line in lines[1:4]}) == 1


@pytest.mark.parametrize(("model", "steps", "told"), [("LSTI", 210, True), ("LSTI", 590, False), ("Markov", 1, False)])
def test_few_steps_of_training_are_told(model, steps, told):
    result = {"model": model, "dataset": "d", "best_valid_result": None, "test_result": {"hit@10": 0.5}}
    result |= {"test_result_unseen": None, "checkpoint_file": None, "best_epoch": 1, "epochs_run": 10}
    result |= {"train_seconds": 1, "n_parameters": 1, "peak_rss_mib": 1, "train_steps": steps}
    assert (f"{steps} steps of training are few: a smaller train_batch_tokens" in format_result(result)) == told


def test_an_interrupted_run_is_one_line(monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_lsti.cli.train", interrupt)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "recbole-lsti: interrupted\n"


def test_the_environment_asks_for_the_traceback(monkeypatch):
    monkeypatch.setenv("LSTI_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match=r"checkpoint \(none.pth\)"):
        main(["recommend", "none.pth", "--users", "1"])


@pytest.mark.slow
def test_a_failing_process_is_one_line(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        flags = ["--nproc", "2", "--port", str(taken.getsockname()[1]), "-d", "tiny", "--data_path", str(tiny)]
        assert main(["train", *flags]) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("recbole-lsti:")]
    assert len(error) == 1
    assert error[0].startswith("recbole-lsti: a process of 2 failed:")


def test_convert_is_mounted_and_starts_without_torch(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i,5\nu,j,6\n", encoding="utf-8")
    script = "import sys; from recbole_lsti.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", script, "convert", "log.csv", "--name", "log", "--output", "out", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "False"], done.stderr
    header, first, _ = (tmp_path / "out/log/log.inter").read_text(encoding="utf-8").splitlines()
    assert header == "user_id:token\titem_id:token\ttimestamp:float"
    assert first == "u\ti\t5"


def test_a_reader_who_leaves_ends_a_command_in_silence():
    command = [sys.executable, "-m", "recbole_lsti.cli", "convert", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as run:
        run.stdout.close()  # before it has imported what it needs to say a word
        assert run.stderr.read() == b""
    assert run.returncode == 141


def test_convert_names_the_extra_it_needs(monkeypatch, capsys):
    monkeypatch.setattr(recbole_lsti, "converters", recbole_lsti.converters)  # put back: the import below binds another
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for name in [name for name in sys.modules if name.startswith("recbole_lsti.converters")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["convert", "x.csv"]) == 2
    told = "convert needs duckdb, from the extra convert: in the clone, pip install -e '.[convert]'"
    assert capsys.readouterr().err == f"recbole-lsti: {told}\n"


def test_a_flag_that_is_given_twice_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config_files", "a.yaml", "--config_files", "b.yaml"])
    assert ended.value.code == 2
    assert "argument --config_files: must be given once, not as a.yaml and b.yaml" in capsys.readouterr().err
    parse = build_parser().parse_known_args  # another call is not another time
    assert [parse(["train", "-d", name])[0].dataset for name in ("a", "b")] == ["a", "b"]


def test_recommend_asks_for_somebody(capsys):
    assert main(["recommend", "checkpoint.pth"]) == 2
    assert "--users or --history must be given" in capsys.readouterr().err
