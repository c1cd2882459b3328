"""Settings of the process: they stand before torch loads, yield to a user's own, and do what they are for."""

import ctypes
import os
import subprocess
import sys

import pytest

from benchmarks import apart
from weft import process
from weft.checks import doctor

FAULTS = """
import resource
import sys
import weft

assert "torch" not in sys.modules

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [b"x" * size for size in [24 << 20] * 6]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""
PAGES = 5 * 6 * (24 << 20) // os.sysconf("SC_PAGE_SIZE")
SETTINGS = ("MALLOC_", "GLIBC_", "GOMP_", "OMP_")
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")


def child(code, **settings):
    """What a new Python prints, without settings of this process but with some of its own."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return subprocess.run(
        [sys.executable, "-c", code], env={**bare, **settings}, capture_output=True, text=True, check=True
    )


@glibc
def test_the_memory_of_a_step_is_there_for_the_next():
    """Blocks that are freed and asked for again are not cleared page by page; no setting is needed."""
    assert int(child(FAULTS).stdout) < PAGES / 100


@glibc
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_a_users_own_memory_settings_hold(name):
    """Whoever sets anything of the kind has it as the library alone would."""
    value = {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}.get(name, "131072")
    assert int(child(FAULTS, **{name: value}).stdout) > PAGES / 2


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_threads_wait_briefly_unless_the_user_says_how(own):
    """One name is set where neither was."""
    environment = dict(own)
    process.prepare(environment)
    assert environment == (own or {"GOMP_SPINCOUNT": "10000"})


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes without libgomp")
def test_the_threads_of_torch_hear_of_it():
    """libgomp says which number it took; importing weft after torch is too late, and no failure."""
    told = {"OMP_DISPLAY_ENV": "VERBOSE"}
    assert "GOMP_SPINCOUNT = '10000'" in child("import weft, torch", **told).stderr
    assert "GOMP_SPINCOUNT = '10000'" not in child("import torch, weft", **told).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes without libgomp")
def test_a_benchmark_of_how_threads_wait_does_not_load_torch_first():
    """Its processes would wait as libgomp does by itself, on both sides of the comparison."""
    imports = apart.CHILD.rsplit(";", 1)[0]
    assert "GOMP_SPINCOUNT = '10000'" in child(imports, OMP_DISPLAY_ENV="VERBOSE").stderr


def test_another_c_library_is_no_failure(monkeypatch):
    """Where there is nothing to set, nothing is done."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    process.prepare({})


def test_doctor_says_when_others_hold_the_processor(monkeypatch):
    """By the load of the last minute against the cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for load, busy in ((0.4, False), (1.0, False), (1.6, True), (9.0, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        said = doctor.processor()
        assert ("other processes" in said) == busy
        assert f"4 cores, load {load:.1f}" in said
    monkeypatch.delattr(os, "getloadavg")
    assert doctor.processor() == "4 cores"


def test_answers_in_any_script_are_written(tmp_path):
    """Whatever code the system's pipes have: UTF-8 comes out, and no fault of weft."""
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": "1"}\n', "utf-8")
    text = 'name: t\nfiles: {train: t.jsonl}\nsource: "{text}"\ntarget: "{label}"\n'
    (tmp_path / "t.yaml").write_text(text + 'labels: {"1": "日本", "2": "ж"}\n', "utf-8")
    command = [sys.executable, "-m", "weft", "tasks", str(tmp_path / "t.yaml"), "--answers"]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True)
    assert done.returncode == 0
    assert {"日本", "ж"} <= set(done.stdout.decode("utf-8").split())
