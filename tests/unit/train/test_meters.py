import json
import math
import sys

import pytest

from largeconcept.train.meters import Meters, MetricWriter, Reporter, read_lines


def test_means_are_weighted_and_reset():
    meters = Meters()
    meters.add("loss", 10.0, 5)
    meters.add("loss", 2.0, 1)
    meters.add("empty", 0.0, 0)
    assert meters.take() == {"loss": 2.0}
    assert meters.take() == {}


def test_running_sums_survive_json_bit_for_bit():
    meters, again = Meters(), Meters()
    for value in (0.1, 1 / 3, 1e300, 5e-324):
        meters.add("x", value, 3)
    again.load_state_dict(json.loads(json.dumps(meters.state_dict())))
    meters.add("x", 0.7)
    again.add("x", 0.7)
    assert meters.take() == again.take()


def test_a_resume_rewinds_to_its_step_and_drops_a_cut_line(tmp_path):
    writer = MetricWriter(tmp_path, tensorboard=False)
    for step in (10, 20, 30):
        writer.write(step, {"loss": step / 7, "lr": 1e-3})
    writer.close()
    with writer.path.open("a") as file:
        file.write('{"step": 40, "lo')
    assert [line["step"] for line in read_lines(writer.path)] == [10, 20, 30]
    writer = MetricWriter(tmp_path, resume_step=20, tensorboard=False)
    writer.write(30, {"loss": math.nan})
    writer.close()
    lines = read_lines(writer.path)
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[1]["loss"] == 20 / 7 and lines[2]["loss"] is None


def test_tensorboard_is_written_where_installed(tmp_path):
    pytest.importorskip("tensorboard")
    writer = MetricWriter(tmp_path)
    writer.write(1, {"loss": 1.5})
    writer.close()
    assert writer.has_tensorboard and list((tmp_path / "tensorboard").glob("events.*"))


def test_without_tensorboard_the_lines_are_still_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = MetricWriter(tmp_path)
    writer.write(1, {"loss": 1.5})
    writer.close()
    assert not writer.has_tensorboard and read_lines(writer.path) == [{"step": 1, "loss": 1.5}]
    assert not (tmp_path / "tensorboard").exists()


def test_reports_are_lines_off_a_terminal_and_nothing_when_silent(capsys):
    with Reporter(total=100) as reporter:
        reporter.step(10, 1.0, 5.0)
        reporter.report(10, {"loss": 1.2345678, "concepts": 7})
    text = capsys.readouterr().err
    assert "train 10/100" in text and "loss 1.235" in text and "concepts 7" in text and text.count("\n") == 1
    with Reporter(total=100, enabled=False) as reporter:
        reporter.step(10, 1.0, 5.0)
        reporter.report(10, {"loss": 1.0})
        reporter.say("hello")
    assert capsys.readouterr().err == ""
