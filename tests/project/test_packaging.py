"""The package installs and imports from everywhere, and imports little.

The trap: the folder kernels/ in the repository root and the PyPI package `kernels`, which transformers
imports where it is installed. Both must work side by side, in a process started in the root or elsewhere,
from an editable install or a wheel. Each check is a fresh interpreter started with -S, so that no other copy
of deltatune takes part.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "deltatune"

# What each process does: import both, use the kernels, and say where everything came from.
PROBE = """
import importlib.util, json, sys
import transformers
from transformers.integrations import hub_kernels  # imports `kernels` where it is installed
from transformers.utils import is_kernels_available
import deltatune, deltatune.kernels
spec = importlib.util.find_spec("kernels")
print(json.dumps({
    "deltatune": deltatune.__file__,
    "fused": deltatune.kernels.__file__,
    "available_on_cpu": deltatune.kernels.available("cpu"),
    "hub_kernels": is_kernels_available(),
    "kernels": spec.origin if spec else None,
}))
"""
# First on the path: the finder has the same module name in every editable install, the environment's own included.
EDITABLE = "import site, sys; sys.path.insert(0, sys.argv[1]); site.addsitedir(sys.argv[1])\n"


def python(code: str, *argv: str, cwd: Path, path: list[Path]) -> str:
    """What a fresh interpreter prints; it has `path`, then this process's libraries."""
    libraries = [entry for entry in sys.path if entry.endswith("-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *libraries])}
    command = [sys.executable, "-S", "-W", "ignore", "-c", code, *argv]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pip(*argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--no-input", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that a build reads, since a build leaves folders behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("deltatune", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder."""
    built, target = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(built), str(checkout))
    (archive,) = built.glob("deltatune-*.whl")
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(archive))
    return target


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The editable install, in a folder that `site` has to read."""
    target = tmp_path_factory.mktemp("editable")
    pip(
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        "-e",
        str(checkout),
    )
    return target


# This stands in place of the PyPI package: any name is a class, and its instances decorate by returning their argument.
STAND_IN = """
class Anything:
    def __init__(self, *args, **kwargs): ...
    def __call__(self, decorated): return decorated

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (Anything,), {})
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution named `kernels`, at a version that transformers takes and imports."""
    from transformers.utils.import_utils import KERNELS_MIN_VERSION

    folder = tmp_path_factory.mktemp("hub")
    (folder / "kernels").mkdir()
    (folder / "kernels" / "__init__.py").write_text(STAND_IN)
    metadata = folder / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
    return folder


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("install", "in_root", "with_hub"),
    [
        ("editable", True, True),
        ("wheel", False, False),
        pytest.param("editable", True, False, marks=SLOW),
        pytest.param("editable", False, True, marks=SLOW),
        pytest.param("editable", False, False, marks=SLOW),
        pytest.param("wheel", False, True, marks=SLOW),
    ],
)
def test_transformers_and_deltatune_import_side_by_side(
    install: str, in_root: bool, with_hub: bool, checkout: Path, hub: Path, tmp_path: Path, request
) -> None:
    target: Path = request.getfixturevalue(install)
    code = EDITABLE + PROBE if install == "editable" else PROBE
    path = ([hub] if with_hub else []) + ([target] if install == "wheel" else [])
    said = json.loads(python(code, str(target), cwd=checkout if in_root else tmp_path, path=path))
    home = checkout if install == "editable" else target
    fused = home / "kernels" / "fused" if install == "editable" else home / "deltatune" / "kernels"
    assert Path(said["deltatune"]) == home / "deltatune" / "__init__.py"
    assert Path(said["fused"]) == fused / "__init__.py"
    assert said["available_on_cpu"] is False
    assert said["hub_kernels"] is with_hub
    assert said["kernels"] == (str(hub / "kernels" / "__init__.py") if with_hub else None)


@pytest.mark.slow
@pytest.mark.parametrize("with_hub", [False, True])
def test_wheel_beside_a_checkout(wheel: Path, checkout: Path, hub: Path, with_hub: bool) -> None:
    """The checkout's own deltatune comes first in its root; both imports work all the same."""
    code = "import transformers.integrations.hub_kernels, deltatune; print(deltatune.__file__)"
    said = python(code, cwd=checkout, path=[*([hub] if with_hub else []), wheel])
    assert Path(said.strip()) == checkout / "deltatune" / "__init__.py"


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    files = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*.py")}
    sources = {f"deltatune/{path.relative_to(LIBRARY).as_posix()}" for path in LIBRARY.rglob("*.py")}
    fused = ROOT / "kernels" / "fused"
    sources |= {f"deltatune/kernels/{path.relative_to(fused).as_posix()}" for path in fused.rglob("*.py")}
    assert files == sources
    assert {path.name for path in wheel.iterdir()} == {"deltatune", "deltatune-0.1.0.dist-info"}


def test_import_is_light() -> None:
    """`import deltatune` needs torch, safetensors, einops and numpy, not what only the experiments use."""
    code = "import json, sys, deltatune; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = set(json.loads(python(code, cwd=ROOT, path=[])))
    heavy = {"triton", "transformers", "hydra", "omegaconf", "peft", "rich", "matplotlib", "scipy", "gguf"}
    assert not loaded & heavy


def test_kernels_import_asks_no_device() -> None:
    code = (
        "import sys, torch\n"
        "def asked(*args, **kwargs): raise AssertionError('a CUDA query at import')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = asked\n"
        "sys.path.insert(0, 'kernels')\n"
        "import fused\n"
        "print('triton' in sys.modules, fused.available('cpu'), fused.available(torch.device('meta')))\n"
    )
    assert python(code, cwd=ROOT, path=[]).split() == ["False", "False", "False"]


def test_no_kernels_package_in_the_root() -> None:
    assert (ROOT / "kernels" / "fused" / "__init__.py").is_file()
    assert not (ROOT / "kernels" / "__init__.py").exists()
