"""Benchmarks: deltatune beside the frozen model, PEFT and full fine-tuning. `python -m benchmarks.<name> --help`."""
