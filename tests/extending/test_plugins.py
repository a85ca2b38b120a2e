"""What plugins= does: names, keys, child processes, errors, the list of everything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import ROOT
from experiments.compare.__main__ import composed as compare_composed
from experiments.compare.config import how
from experiments.config import plugins
from experiments.config.compose import complete, composed
from experiments.config.identity import key, run_name, settings
from experiments.config.methods import METHODS
from experiments.config.table import LOADING, PluginError, Table, first_line
from experiments.config.tasks import TASKS, TaskConfig, task
from experiments.list import ROOMS, rows
from experiments.models.table import MODELS
from experiments.objectives import OBJECTIVES
from experiments.report.sections import SECTIONS
from experiments.tasks.metrics import METRICS, metric
from experiments.training.tracker_table import TRACKERS
from tests.support.own_tables import tables_as_before  # noqa: F401
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401

SCALE = '''
import torch
import deltatune as dt
from experiments.extend import method

@method("{name}", lr=1e-2, where="*.up_proj")
class {name}(dt.DeltaModule):
    """h · (1 + g)."""
    def __init__(self, host):
        super().__init__()
        self.g = torch.nn.Parameter(torch.zeros(dt.features(host).out))

    def change(self, x, h):
        return self.g * h
'''
TASK = '''
from dataclasses import dataclass
from experiments.extend import TaskConfig, task

@dataclass
class {name}Config(TaskConfig):
    n_test: int = 7

@task("{name}", {name}Config)
def load(config, seed):
    """{name}: nothing at all."""
'''
SMALL = ("task.n_train=40", "task.n_val=5", "task.n_test=6", "forgetting.enabled=false", "device=cpu")


def written(name: str, source: str, folder: Path | None = None) -> Path:
    file = (folder or Path.cwd()) / f"{name}.py"
    file.write_text(source.format(name=name))
    return file


def command(*words: str, more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command of experiments, given in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(more or {})}
    return subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- names and keys


def test_without_plugins_a_key_is_what_it_was() -> None:
    written("plug_idle", TASK)
    plain = composed(["model=tiny", "optim=quick", "device=cpu"])
    assert plain.plugins == []
    assert "plugins" not in settings(plain)
    assert run_name(plain) == f"tiny-ha_json-lora-s0-{key(plain)}"
    with_one = composed(["plugins=[plug_idle]", "model=tiny", "optim=quick", "device=cpu"])
    assert with_one.plugins == ["plug_idle"]
    assert key(with_one) != key(plain)
    # The plugin is in the process by now, and a run that uses nothing of it is the run that it was.
    assert key(composed(["model=tiny", "optim=quick", "device=cpu"])) == key(plain)


def test_a_plugin_is_a_module_or_a_file_and_the_key_follows_its_source(tmp_path: Path) -> None:
    file = written("plug_task", TASK, folder=tmp_path)
    by_name = composed(["plugins=[plug_task]", "task=plug_task", "task.n_test=3"])
    by_file = composed(["plugins=[./plug_task.py]", "task=plug_task", "task.n_test=3"])
    assert by_name.task.n_test == 3  # type: ignore[attr-defined]
    assert key(by_name) == key(by_file)
    before = key(by_name)
    file.write_text(file.read_text() + "\n# another version")
    assert key(by_name) != before


def test_a_package_is_hashed_whole(tmp_path: Path) -> None:
    package = tmp_path / "plug_package"
    package.mkdir()
    (package / "__init__.py").write_text(TASK.format(name="plug_packaged"))
    helper = package / "helper.py"
    helper.write_text("x = 1\n")
    config = composed(["plugins=[plug_package]", "task=plug_packaged"])
    before = key(config)
    helper.write_text("x = 2\n")
    assert key(config) != before
    assert plugins.source_sha256("plug_nowhere.inside") is None


def test_a_configuration_names_the_plugins_that_it_uses() -> None:
    """Also where something else has loaded them: an entry point, or a module that was imported by hand."""
    written("plug_used", TASK)
    plugins.load(["plug_used"])
    assert composed(["task=plug_used"]).plugins == ["plug_used"]
    assert composed(["forgetting.tasks=['plug_used task.n_test=3']"]).plugins == ["plug_used"]
    assert composed(["track=[plug_used]"]).plugins == []  # a tracker changes no outcome
    config = composed(["plugins=[plug_used]", "task=plug_used"])
    assert complete(config).plugins == ["plug_used"]
    assert key(config) == key(composed(["task=plug_used"]))


def test_words_that_plugins_are_read_from() -> None:
    given = ["model=tiny", "plugins=[a,./b.py]", "+plugins=c", "plugins=[", "task.plugins=[d]"]
    assert plugins.named(given) == ["a", "./b.py", "c"]


# ---------------------------------------------------------------- commands


def test_a_sweeps_children_see_the_plugins() -> None:
    written("plug_sweep", SCALE)
    done = command(
        *("experiments.run", "-m", "plugins=[./plug_sweep.py]", "method=plug_sweep,bitfit", "model=tiny"),
        *("optim=quick", *SMALL),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(file.read_text()) for file in Path("runs").glob("*/result.json")]
    assert {result["method"] for result in results} == {"plug_sweep", "bitfit"}
    assert all(result["status"] == "complete" for result in results)
    assert all(result["config"]["plugins"] == ["./plug_sweep.py"] for result in results)


def test_compare_takes_a_plugins_method(tmp_path: Path) -> None:
    written("plug_compare", SCALE)
    shared = ",".join(f'"{word}"' for word in (*SMALL, "optim=quick"))
    done = command(
        *("experiments.compare", "plugins=[plug_compare]", "methods=[plug_compare]", "model=tiny", "trials=1"),
        *("cap=1", "search_seeds=[101]", "baselines=[none]", "points=0"),
        *("seeds=1", "steps=2", f"shared=[{shared}]", "resamples=100", f"results={tmp_path}/results"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    study = json.loads(Path("results/comparison.json").read_text())
    assert "plug_compare" in {each["method"] for each in study["tasks"]["ha_json"]["methods"]}
    assert "Plugins: plug_compare." in study["how"]


def test_compare_says_its_plugins_only_where_it_has_some() -> None:
    assert "Plugins: a, b.c." in how(compare_composed(["plugins=[a,b.c]"]))
    assert "Plugins" not in how(compare_composed([]))


def test_data_check_and_sequence_load_plugins_and_say_what_is_wrong() -> None:
    for words in (("experiments.data", "check", "task=sql"), ("experiments.sequence", "tasks=[sql,style]")):
        done = command(*words, "plugins=[plug_absent]")
        assert done.returncode == 2
        assert "plugins=plug_absent: cannot be imported: no module 'plug_absent'" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_entry_point_needs_no_plugins_word(tmp_path: Path) -> None:
    """A distribution of a folder on the path: its files, and the metadata that pip would have written."""
    site = tmp_path / "site"
    info = site / "plug_dist-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deltatune.plugins]\nshort = plug_installed\nsick = plug_sick\n")
    written("plug_installed", TASK, folder=site)
    (site / "plug_sick.py").write_text("raise OSError('no disk')\n")
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    listed = command("experiments.list", "task", more=path)
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if "plug_installed" in line]
    assert "plug_installed: nothing at all." in line
    assert "entry point short of plug-dist" in line
    assert "warning: plugins=sick: cannot be imported" in listed.stderr
    assert "plug_sick.py:1: OSError: no disk" in listed.stderr
    probe = "from experiments.config.compose import composed; print(composed(['task=plug_installed']).plugins)"
    done = subprocess.run(
        [sys.executable, "-c", probe], env={**os.environ, **path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['short']"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\ny = 1 / 0\n", r"plug_bad\.py:2: ZeroDivisionError: division by zero"),
        ("x = (\n", r"plug_bad\.py:1: SyntaxError"),
        ("import plug_not_there\n", r"plug_bad\.py:1: ModuleNotFoundError: No module named 'plug_not_there'"),
        ("from experiments.extend import tusk\n", r"plug_bad\.py:1: ImportError: cannot import name 'tusk'"),
        ("import json\ndef f():\n    json.loads('[')\nf()\n", r"plug_bad\.py:3: JSONDecodeError"),
    ],
)
def test_a_plugin_that_fails_is_named_with_its_line(source: str, said: str) -> None:
    Path("plug_bad.py").write_text(source)
    with pytest.raises(PluginError, match=rf"plugins=plug_bad: cannot be imported: .*{said}"):
        composed(["plugins=[plug_bad]"])
    assert LOADING == []


def test_a_plugin_that_is_not_there() -> None:
    with pytest.raises(PluginError, match=r"no module 'plug_absent' in .*name a module or a file"):
        composed(["plugins=[plug_absent.deeper]"])
    with pytest.raises(PluginError, match=r"plugins=\./absent\.py: there is no such file, seen from "):
        composed(["plugins=[./absent.py]"])
    Path("json.py").write_text("")
    with pytest.raises(PluginError, match=r"Python has another module 'json'.*give the file another name"):
        composed(["plugins=[./json.py]"])


def test_names_are_taken_once() -> None:
    written("plug_first", TASK)
    Path("plug_second.py").write_text(TASK.format(name="plug_first"))
    Path("plug_third.py").write_text(TASK.format(name="sql"))
    with pytest.raises(
        PluginError, match=r"plug_second\.py:9: .*task 'plug_first' already, at .*plug_first\.py:9; choo"
    ):
        composed(["plugins=[plug_first,plug_second]"])
    with pytest.raises(PluginError, match=r"plug_third\.py:9: .*task 'sql' already, at .*config/tasks\.py:\d+; choose"):
        composed(["plugins=[plug_third]"])
    Path("plug_lora.py").write_text(SCALE.format(name="lora"))
    with pytest.raises(PluginError, match="there is a method 'lora' already"):
        composed(["plugins=[plug_lora]"])


def test_a_class_name_is_one_classs() -> None:
    """A delta's file names its method by the class, so two of one name would be taken for each other."""
    written("plug_one", SCALE)
    Path("plug_two.py").write_text(SCALE.format(name="plug_one").replace('@method("plug_one"', '@method("other"'))
    with pytest.raises(PluginError, match="plug_one and plug_two both define a class plug_one"):
        composed(["plugins=[plug_one,plug_two]"])


def test_wrong_arguments_of_the_decorators() -> None:
    with pytest.raises(PluginError, match=r"task 'x': .*is no dataclass made from TaskConfig"):
        task("x", dict)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="metric 'x': no kind of task 'sing'; there are: generate, classify"):
        metric("x", "sing")  # type: ignore[arg-type]
    assert issubclass(TASKS["sql"].config, TaskConfig)


def test_an_unknown_name_lists_what_there_is_plugins_included() -> None:
    written("plug_listed", SCALE)
    done = command("experiments.run", "plugins=[plug_listed]", "method=plug_unlisted")
    assert done.returncode == 1
    assert "Could not find 'method/plug_unlisted'" in done.stderr
    assert "plug_listed" in done.stderr
    assert "lora" in done.stderr


# ---------------------------------------------------------------- the list


def test_the_list_has_every_table_and_without_objectives_no_torch() -> None:
    without_torch = [kind for kind in ROOMS if kind != "objective"]
    probe = f"import sys; from experiments.list import main; main({without_torch}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    *lines, torch_is_there = done.stdout.splitlines()
    assert torch_is_there == "False"
    lines += command("experiments.list", "objective").stdout.splitlines()
    for table in (METHODS, TASKS, *METRICS.values(), OBJECTIVES, MODELS, TRACKERS, SECTIONS):
        for name in table:
            (line,) = [line for line in lines if re.match(rf" {re.escape(table.kind)} +{name} ", line)]
            assert line.rstrip().endswith("package")


def test_every_entry_says_what_it_is() -> None:
    assert [row for row in rows() if not row[2]] == []


def test_the_list_of_a_kind_and_of_one_that_is_none() -> None:
    done = command("experiments.list", "method")
    assert "lora" in done.stdout
    assert "ha_json" not in done.stdout
    done = command("experiments.list", "kernel")
    assert done.returncode == 2
    assert "no kind 'kernel'; there are: method, task" in done.stderr


def test_first_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("name: a\nlr: 1  # what it is\n# more\n")
    assert first_line(file) == "what it is"
    assert first_line("experiments.tasks.style").startswith("style: ")
    assert first_line(Table) == (Table.__doc__ or "").splitlines()[0]
