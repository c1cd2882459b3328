"""Which files of a folder declare tasks, and which tasks a stage's file and --set name."""

from contextlib import chdir
from pathlib import Path

import pytest
from tiny_job import command, write_job, write_task

from weft.errors import ConfigError, WeftError
from weft.experiments.jobs import load_experiment, specs_of
from weft.experiments.stage_files import load_run
from weft.runs.config import AdaptRun, SourceRun, TeacherRun
from weft.tasks import BUILTIN, files_in, find_specs, named

ADAPT = "tasks: [a.yaml]\nmethod: {name: prompt_tuning}\noptim: {lr: {prompt: 0.1}, steps: 2}\n"
TEACHERS = "tasks: [a.yaml]\noptim: {lr: {prompt: 0.1}, steps: 2}\n"
SOURCE = (
    "tasks: [a.yaml, b.yaml]\nteachers: {}\nprompt: {length: 4}\n"
    "optim: {lr: {shared: 0.1, factors: 0.1}, steps: 2}\n"
)
STAGES = [(AdaptRun, ADAPT), (TeacherRun, TEACHERS), (SourceRun, SOURCE)]
OTHERS = {
    "adapt.yaml": ADAPT,
    "teachers.yaml": TEACHERS,
    "source.yaml": SOURCE,
    "faulty.yaml": "name: exp\ntargets: [a]\nsource: {optim: {}}\n",
    "broken-adapt.yaml": "base: {model: pocket}\nsource: bundled\nmethod: {name: mpt}\n",
    "environment.yaml": "name: mine\ndependencies: [python]\n",
    "compose.yaml": "services: {}\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Task files a and b, their rows, an experiment over them, and other YAML, all in one folder."""
    write_job(tmp_path, "llama", "suffix")
    for name, other in (("alpha", "a"), ("beta", "b")):
        write_task(tmp_path, name, ("yes", "no"), flip=False)
        (tmp_path / f"{name}.yaml").rename(tmp_path / f"{other}.yaml")
    for name, text in OTHERS.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_a_folder_is_searched_for_tasks_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`weft tasks` lists those beside, and `tasks: [.]` takes them."""
    assert [path.name for path in files_in(folder)] == ["a.yaml", "b.yaml"]
    with chdir(folder):
        assert command("tasks") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["alpha", "beta"]
    here = folder / "tiny.yaml"
    here.write_text(here.read_text("utf-8").replace("tasks: [tasks]", "tasks: [.]"), "utf-8")
    assert set(specs_of(load_experiment(here, {"targets": ["alpha"], "sources": []}))) == {"alpha", "beta"}


def test_without_tasks_beside_the_built_in_ones_are_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment over built-in tasks stands alone in its folder."""
    for path in files_in(folder):
        path.unlink()
    with chdir(folder):
        assert command("tasks") == 0
    said = capsys.readouterr().out
    assert all(f"\n{path.name.removesuffix('.yaml')} " in said for path in BUILTIN.glob("*.yaml"))
    with pytest.raises(ConfigError, match="no task files") as fault:
        find_specs([folder])
    assert fault.value.fix


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_file_that_is_named_must_be_a_task(folder: Path, name: str) -> None:
    """It was meant, whatever it holds."""
    with pytest.raises(WeftError) as fault:
        named([name], folder)
    assert name in str(fault.value)


@pytest.mark.parametrize(
    "text",
    [
        'name: c\nsource: "{text}"\n',
        'name: c\ntarget: "{label}"\nfiles: {test: c.csv}\n',
        'name: c\nsource: "{text}"\ntarget: "{label}"\nlables: {y: yes}\n',
        'name: c\nsource: "{text}"\ntarget: "{label}"\nprompt: long\n',
        'name: c\nsource: "{text}"\ntarget: "{label}"\nmetrics: [acuracy\n',
        "name: c\nmetrics: 3\n",
        "",
    ],
)
def test_a_broken_task_is_not_passed_over(folder: Path, text: str) -> None:
    """Whatever is wrong with it, the folder's tasks are not given without it."""
    (folder / "c.yaml").write_text(text, "utf-8")
    with pytest.raises(WeftError, match=r"c\.yaml"):
        find_specs([folder])


@pytest.mark.parametrize(("kind", "text"), STAGES)
def test_set_changes_the_tasks_of_a_stage(folder: Path, kind: type, text: str) -> None:
    """To other files, to one other in the list, or in a key of a task; first the list, then its keys."""
    path = folder / "stage.yaml"
    path.write_text(text, "utf-8")
    two = kind is SourceRun
    other = ("b.yaml", "tasks/gamma.yaml") if two else ("b.yaml",)

    def tasks(overrides: dict[str, object]) -> list[str]:
        return [task.name for run in load_run(path, kind, overrides) for task in run.tasks]

    assert tasks({}) == (["alpha", "beta"] if two else ["alpha"])
    assert tasks({"tasks": other}) == (["beta", "gamma"] if two else ["beta"])
    assert tasks({"tasks.0": "tasks/delta.yaml"})[0] == "delta"
    changes = {"tasks.0.max_target_tokens": 20, "tasks": other}
    [first, *_] = load_run(path, kind, changes)
    assert (first.tasks[0].name, first.tasks[0].max_target_tokens) == ("beta", 20)


@pytest.mark.parametrize(("kind", "text"), STAGES)
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"tasks": ("none.yaml",)}, "none.yaml"),
        ({"tasks.0": "none.yaml"}, "none.yaml"),
        ({"tasks.5": "a.yaml"}, "nothing at '5'"),
        ({"tasks": "a.yaml"}, "must be a list"),
        ({"tasks": ("adapt.yaml",)}, "adapt.yaml"),
        ({"tasks": (3,)}, "tasks"),
        ({"tasks.0.no_such_key": 1}, "no_such_key"),
        ({"tasks.7.metrics": ("f1_macro",)}, "nothing at '7'"),
    ],
)
def test_tasks_that_cannot_be_set_are_refused(
    folder: Path, kind: type, text: str, overrides: dict[str, object], said: str
) -> None:
    """Never is the file's own list taken in their place."""
    path = folder / "stage.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(WeftError) as fault:
        load_run(path, kind, overrides)
    assert said in str(fault.value)
    assert "fix:" in str(fault.value)


@pytest.mark.parametrize("stage", ["adapt", "teachers", "source"])
def test_the_commands_refuse_a_task_file_that_is_not_there(
    folder: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and the file's name."""
    words = (stage, folder / f"{stage}.yaml", "--runs", folder / "runs", "--set", "tasks=[none.yaml]")
    assert command(*words) == 2
    assert "none.yaml" in capsys.readouterr().err
