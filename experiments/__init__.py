"""Experiments with deltatune: tasks, training, measurement. In a checkout: python -m experiments.run."""
