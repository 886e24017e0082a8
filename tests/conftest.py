"""Every test: no network, one thread per worker, no stopwatch on laws."""

import os

# Before transformers is imported: a test that asked the hub would wait for a network that it must not use.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import torch

torch.set_num_threads(1)  # one process per core (pytest -n); more threads would fight over them
hypothesis.settings.register_profile("atlaskit", deadline=None)  # timings belong in benchmarks
hypothesis.settings.load_profile("atlaskit")
