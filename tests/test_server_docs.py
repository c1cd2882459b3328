"""Every example of docs/serve.md, as it stands there, against an engine whose answers name their task."""

import re
import subprocess
from pathlib import Path

import pytest
from fake_engine import write_bank
from serving_helpers import served

from weft.server.settings import ServeConfig

DOCUMENT = (Path(__file__).parents[1] / "docs" / "serve.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    tasks = {"spam": {}, "topic": {}, "reply": {"closed": False}}
    with served(write_bank(tmp_path_factory.mktemp("docs") / "bank", **tasks)) as running:
        yield running.url


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_examples_run(url, language, text, capsys):
    assert "http://127.0.0.1:8000" in text
    here = text.replace("http://127.0.0.1:8000", url)
    if language == "python":
        exec(compile(here, "docs/serve.md", "exec"), {})
        said = capsys.readouterr().out
        assert said.count("reply says Where is my parcel?") == 2
    else:
        said = subprocess.run(["bash", "-c", here], check=True, capture_output=True, text=True).stdout
        assert re.search(r"spam-yes|reply says", said), said
        assert '"error":{' not in said


def test_settings_that_are_named_are_there():
    named = set(re.findall(r"`([a-z]+_[a-z]+)`", DOCUMENT)) - {
        "top_p",
        "stream_options",
        "prompt_tokens_details",
    }
    assert named <= set(ServeConfig.model_fields), named - set(ServeConfig.model_fields)
    assert len(named) > 5
    assert len(BLOCKS) == 4
