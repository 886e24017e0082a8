"""What travels with the package, and needs no network: small models trained by us, texts, minimal pairs."""

from .bundled import BUNDLED as BUNDLED
from .bundled import path as path
from .bundled import verify as verify
from .corpus import read_texts as read_texts
from .gold_texts import gold as gold
from .pair import CONTROL as CONTROL
from .pair import Pair as Pair
from .pair import groups as groups
from .pair import pairs as pairs
from .pair import select_pairs as select_pairs
from .pair_files import read_crows_pairs as read_crows_pairs
from .pair_files import read_pairs as read_pairs
from .pair_files import read_stereoset as read_stereoset
from .swaps import swaps as swaps
from .texts import texts as texts
