"""The faults of other libraries that docs/upstream tells of: each is still there, as its own test shows."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs" / "upstream"
FAULTS = {  # document -> what its test fails of
    "peft-decoder-prompt": (AssertionError, "assert other_tokens.shape != tokens.shape"),
    "peft-multitask-start": (AssertionError, "assert prompt.norm()"),
    "peft-source-file": (FileNotFoundError, "PeftModel.from_pretrained"),
}


def test_every_document_has_a_fault():
    assert {path.stem for path in DOCS.glob("*.md")} == set(FAULTS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_still_there(name, tmp_path):
    """Its test fails, and of what it says. Mended upstream, the document has served its purpose."""
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / f"{name}.md").read_text("utf-8"), re.DOTALL)
    file = tmp_path / "upstream_case.py"
    file.write_text(code, "utf-8")
    space = {}
    exec(compile(code, str(file), "exec"), space)
    [test] = [one for key, one in space.items() if key.startswith("test_")]
    kind, line = FAULTS[name]
    with pytest.raises(kind) as caught:
        test(tmp_path) if "tmp_path" in test.__code__.co_varnames[: test.__code__.co_argcount] else test()
    lines = code.splitlines()
    assert any(line in lines[one.lineno] for one in caught.traceback if str(one.path) == str(file))
