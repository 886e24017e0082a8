"""Transformers: load, capture, survey."""

from .ablation import ablation_effect as ablation_effect
from .ablation import ablation_effects as ablation_effects
from .ablation import losses as losses
from .capture import capture as capture
from .intervene import intervene as intervene
from .intervene import mean_z as mean_z
from .load import available as available
from .load import load as load
from .model import Model as Model
from .model import fingerprint as fingerprint
from .model import wrap as wrap
from .patching import attribution_patching as attribution_patching
from .patching import patching_effects as patching_effects
from .planted import PLANTED as PLANTED
from .planted import UNIFORM as UNIFORM
from .planted import planted as planted
from .projection import write_weights as write_weights
from .survey import survey as survey
from .untrained import untrained as untrained
