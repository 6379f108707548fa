"""The demo page; gradio need not be installed."""

import shutil
import sys
from unittest.mock import MagicMock

import matplotlib.pyplot as plt
import pytest

from utils import demo, plots, predict, runs
from utils.run_folder import Run


class Error(Exception):
    def __init__(self, message, **_):
        super().__init__(message)


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as stopped:
        demo.main([])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "The page needs gradio, which is not installed: pip install gradio\n"


def test_a_sound_gets_its_highest_scores_and_a_plot(run, competition):
    path = competition.test["path"].iloc[0]
    figures = plt.get_fignums()
    scores, figure = demo.tag_sound(path, run)
    expected = predict.tag(path, run).iloc[0].nlargest(5)
    assert scores == pytest.approx(dict(zip(map(plots.display_name, expected.index), expected)))
    assert len(figure.axes[1].get_yticklabels()) == 5
    assert plt.get_fignums() == figures


def test_the_page_accepts_no_sound_and_says_why_one_cannot_be_read(run, tmp_path, monkeypatch):
    gradio = MagicMock(Error=Error)
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    demo.page(run)
    assert not [call for call in gradio.Markdown.call_args_list if runs.ON_MINI_SET in call.args[0]]
    demo.page(Run(shutil.copytree(run.folder, tmp_path / "mini-2019-abc/deep_cnn")))
    gradio.Markdown.assert_called_with(f"**{runs.ON_MINI_SET}**")
    answer = gradio.Audio().change.call_args.args[0]
    assert answer(None) == (None, None)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(Error, match=r"text\.wav cannot be read as audio"):
        answer(str(tmp_path / "text.wav"))
