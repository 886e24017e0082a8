"""Models that travel with the package: small, trained by us, loaded without a network."""

from .bundled import BUNDLED as BUNDLED
from .bundled import path as path
from .bundled import verify as verify
from .texts import texts as texts
