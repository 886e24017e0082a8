"""Train a transformers language model: seeded, resumable, on CPU, one GPU or several."""

from .batches import causal_batch as causal_batch
from .batches import masked_batch as masked_batch
from .batches import windows as windows
from .loop import Curve as Curve
from .loop import Plan as Plan
from .loop import held_out_loss as held_out_loss
from .loop import learning_rate as learning_rate
from .loop import train as train
