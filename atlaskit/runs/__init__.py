"""Notebooks run headless: parameters in, findings on disk, one page to read them."""

from .audit import Audit as Audit
from .execution import NotebookError as NotebookError
from .execution import execute as execute
from .findings import Run as Run
from .findings import versions as versions
from .parameters import Parameter as Parameter
from .parameters import check_parameters as check_parameters
from .parameters import declared_parameters as declared_parameters
from .parameters import parse_parameters as parse_parameters
from .reporting import report as report
from .result import Labelled as Labelled
from .result import Result as Result
from .result import Source as Source
from .table import check_format as check_format
from .table import export as export
from .table import rows as rows
