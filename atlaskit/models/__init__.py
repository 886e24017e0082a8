"""Transformers: load, capture, survey."""

from .capture import capture as capture
from .load import available as available
from .load import load as load
from .model import Model as Model
from .model import fingerprint as fingerprint
from .model import wrap as wrap
from .planted import PLANTED as PLANTED
from .planted import UNIFORM as UNIFORM
from .planted import planted as planted
from .projection import write_weights as write_weights
from .survey import survey as survey
from .untrained import untrained as untrained
