"""Train a transformers language model: seeded, resumable, on CPU, one GPU or several."""

from .batches import causal_batch as causal_batch
from .batches import masked_batch as masked_batch
from .batches import windows as windows
from .language import character_stream as character_stream
from .language import language as language
from .language import token_stream as token_stream
from .listops import list_ops as list_ops
from .loop import Curve as Curve
from .loop import Plan as Plan
from .loop import held_out_loss as held_out_loss
from .loop import learning_rate as learning_rate
from .loop import train as train
from .small import small_decoder as small_decoder
from .tasks import Task as Task
from .tasks import accuracy as accuracy
from .tasks import associative_recall as associative_recall
from .tasks import copy as copy
from .tasks import needle as needle
from .tasks import selective_copy as selective_copy
