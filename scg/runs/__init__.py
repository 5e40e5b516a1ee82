"""Long runs that survive: folders, checkpoints, progress, configuration, for loops of any kind."""

from scg.nearest import named_nearest
from scg.runs.config import read_config
from scg.runs.devices import device, dtype
from scg.runs.options import add_options, configure
from scg.runs.part import Part
from scg.runs.run import Run, open
from scg.runs.seeds import seed_of
from scg.runs.stopping import Stopped

__all__ = [
    "Part",
    "Run",
    "Stopped",
    "add_options",
    "configure",
    "device",
    "dtype",
    "named_nearest",
    "open",
    "read_config",
    "seed_of",
]
