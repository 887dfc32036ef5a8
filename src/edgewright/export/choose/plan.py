"""What a comparison of files by the clock is asked for."""

from pydantic import Field

from edgewright.core.data import Asked
from edgewright.core.written import Shapes

OPEN_SHAPE = "Of the input, where the file leaves it open: 1,3,224,224; of several: 'ids=1,128;mask=1,128'."


class VersusPlan(Asked):
    """What is asked. The command's options are its fields, in this order."""

    threads: int = Field(default=1, ge=1, description="Threads of every runtime.")
    runs: int = Field(default=300, ge=20, description="Timed runs of each.")
    shape: Shapes | None = Field(default=None, description=OPEN_SHAPE)
    seed: int = Field(default=0, ge=0, description="Of the inputs' values.")
